"""What is published of an isolated package; what is declared, unloaded and forked is tested with the loader."""

import pytest

from mempressure.measure.process import ProcessMemory
from mempressure.measure.reading import UNKNOWN
from mempressure.worker.isolated_states import isolated_states

MEASURED = {"json": {7: ProcessMemory(6, 3), 8: ProcessMemory(3, 2)}, "wave": {9: ProcessMemory(50, 40)}}


@pytest.fixture
def package(make_package):
    return make_package()


def published(package):
    (state,) = isolated_states({"json": package}, MEASURED)
    return state


def test_every_call_of_an_isolated_package_is_a_use_over_all_its_loads(package):
    assert (published(package).uses, published(package).loaded) == (0, 0)
    for _ in range(3):
        package.call("json", "dumps", (1,))
    package.unload()
    package.call("json", "dumps", (1,))
    state = published(package)
    assert (state.uses, state.loads, state.memory_bytes) == (4, 2, 5)


def test_a_call_that_fails_is_a_use(package):
    with pytest.raises(ValueError, match="Expecting value"):
        package.call("json", "loads", ("",))
    assert published(package).uses == 1


def test_all_that_is_in_a_process_of_its_own_goes_with_it(package):
    state = published(package)
    assert (state.memory_bytes, state.cumulative_bytes, state.freed_bytes, state.growth) == (5, 5, 5, UNKNOWN)
    assert state.proportional_bytes == 9
    (state,) = isolated_states({"json": package}, MEASURED, growth={"json": 7.5})
    assert state.growth == 7.5
