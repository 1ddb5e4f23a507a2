"""What a worker publishes of its packages; orders are tested with the loader and the agent."""

import pytest

from mempressure.isolated_package import IsolatedPackage
from mempressure.state import UNKNOWN
from mempressure.tracking import PackageTracker
from mempressure.worker import package_states


@pytest.fixture
def tracker():
    tracker = PackageTracker()
    yield tracker
    tracker.close()


@pytest.fixture
def package():
    package = IsolatedPackage("json")
    yield package
    package.close()


def published(tracker, package):
    (state,) = package_states(tracker, {"json": package}, {"json": 5})
    return state


def test_every_call_of_an_isolated_package_is_a_use_over_all_its_loads(tracker, package):
    assert (published(tracker, package).uses, published(tracker, package).loaded) == (0, 0)
    for _ in range(3):
        package.call("json", "dumps", (1,))
    package.unload()
    package.call("json", "dumps", (1,))
    state = published(tracker, package)
    assert (state.uses, state.loads, state.memory_bytes) == (4, 2, 5)


def test_a_call_that_fails_is_a_use(tracker, package):
    with pytest.raises(ValueError, match="Expecting value"):
        package.call("json", "loads", ("",))
    assert published(tracker, package).uses == 1


def test_all_that_is_in_a_process_of_its_own_goes_with_it(tracker, package):
    state = published(tracker, package)
    assert (state.memory_bytes, state.cumulative_bytes, state.freed_bytes, state.growth) == (5, 5, 5, UNKNOWN)
    (state,) = package_states(tracker, {"json": package}, {"json": 5}, growth={"json": 7.5})
    assert state.growth == 7.5
