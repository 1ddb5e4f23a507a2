"""States of hung, dead and malicious workers do not affect other workers and never show as an impossible value."""

import math
import os
import socket
import stat
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mempressure.config.configuration import load_configuration
from mempressure.state.records import PACKAGE_VALUES, WORKER_VALUES, PackageState, encode
from mempressure_exporter.collectors import Collectors
from tests.support.builders.samples import printed
from tests.support.builders.state_file import joined, parts
from tests.support.doubles.clock import Clock

STARTED = 1e9
OPTIONS = {"mechanism": "stop", "source": "process", "timeout": 60.0}


@pytest.fixture
def collectors(proc, runtime_dir, state_dir, tmp_path, publish_worker):
    """Collectors that see one honest worker, of the app "shop"."""
    (tmp_path / "none.json").write_text("{}")
    environ = {
        "MEMPRESSURE_CONFIG": str(tmp_path / "none.json"),
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(state_dir),
    }
    for pid in (101, 666):
        proc.process(pid)
    publish_worker(packages=[PackageState(name="pandas", **OPTIONS, loaded=1.0, memory_bytes=5e6, loads=2.0)])
    return Collectors(load_configuration(environ=environ), proc=proc.path, clock=Clock(STARTED))


@pytest.fixture
def untrusted(runtime_dir, collectors):
    """The state file of worker 666 of this user, for the tests to forge."""
    return runtime_dir / str(os.geteuid()) / "666.state"


def honest(samples):
    """Return the series of the honest worker's app, as name and labels to value."""
    return {(name, *labels): value for name, labels, value in samples if labels[:1] == ("shop",)}


def problems(samples):
    return sum(value for name, _, value in samples if name == "mempressure_exporter_problems_total")


def assert_valid(samples):
    """Assert that no sample is negative, infinite, not a number or duplicate, and that no collector failed."""
    for name, labels, value in samples:
        assert math.isfinite(value), name
        assert value >= 0 or "trend" in name, (name, labels, value)
    assert len({(name, *labels) for name, labels, _ in samples}) == len(samples)
    assert all(value for name, _, value in samples if name == "mempressure_scrape_collector_success")


def catalog_of(make_worker, **changes):
    catalog, _ = parts(encode(make_worker(pid=666, app="untrusted", packages=["pandas"])))
    return catalog | changes


VALUES = [0.0] * (len(WORKER_VALUES) + len(PACKAGE_VALUES))


def with_value(value, place=-1):
    values = list(VALUES)
    values[place] = value
    return values


REFUSED = {
    "garbage": lambda make: os.urandom(4096),
    "empty": lambda make: b"",
    "cut short": lambda make: encode(make(pid=666, app="untrusted"))[:-3],
    "too long": lambda make: encode(make(pid=666, app="untrusted")) + b"x",
    "another's pid": lambda make: encode(make(pid=101, app="untrusted")),
    "a name of wrong type": lambda make: joined(catalog_of(make, app=["shop"]), VALUES),
    "a pid of wrong type": lambda make: joined(catalog_of(make, pid="666"), VALUES),
    "a boolean for a number": lambda make: joined(catalog_of(make, budget_bytes=True), VALUES),
    "an absurd budget": lambda make: joined(catalog_of(make, budget_bytes=2**70), VALUES),
    "a negative budget": lambda make: joined(catalog_of(make, budget_bytes=-5), VALUES),
    "packages of wrong type": lambda make: joined(catalog_of(make, packages={"a": 1}), VALUES),
    "no catalog": lambda make: joined(b"nonsense", VALUES),
    "brackets without end": lambda make: joined(b"[" * 100_000, VALUES),
    "NaN in the catalog": lambda make: joined(catalog_of(make, started=math.nan), VALUES),
    "NaN": lambda make: joined(catalog_of(make), with_value(math.nan)),
    "infinite": lambda make: joined(catalog_of(make), with_value(math.inf)),
    "minus infinite": lambda make: joined(catalog_of(make), with_value(-math.inf, 0)),
    "huge": lambda make: joined(catalog_of(make), with_value(1e300)),
    "negative": lambda make: joined(catalog_of(make), with_value(-2.0)),
    "a control character": lambda make: joined(catalog_of(make, app="shop\nup 1"), VALUES),
}


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_an_invalid_state_is_left_out_and_counted(collectors, untrusted, make_worker, what):
    before = honest(printed(collectors.collect()))
    untrusted.write_bytes(REFUSED[what](make_worker))
    samples = printed(collectors.collect())
    assert_valid(samples)
    assert honest(samples) == before
    assert problems(samples) == 1


def a_fifo(path):
    os.mkfifo(path)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        directory = os.open(path.parent, os.O_RDONLY)  # the path may be longer than a socket's may be
        try:
            listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)


def a_directory(path):
    path.mkdir()


def a_link_to_a_state(path):
    os.rename(path.with_name("101.state"), path.with_name("elsewhere"))
    path.with_name("101.state").write_bytes(path.with_name("elsewhere").read_bytes())
    path.symlink_to(path.with_name("elsewhere"))


def a_device(path):
    path.symlink_to("/dev/zero")


def a_file_of_gigabytes(path):
    with open(path, "wb") as file:
        file.truncate(8 << 30)  # sparse


@pytest.mark.parametrize("make", [a_fifo, a_socket, a_directory, a_link_to_a_state, a_device, a_file_of_gigabytes])
def test_other_than_a_regular_file_does_not_delay_the_scrape(collectors, untrusted, make):
    before = honest(printed(collectors.collect()))
    make(untrusted)
    began = time.monotonic()
    samples = printed(collectors.collect())
    assert time.monotonic() - began < 5  # it would block for ever
    assert_valid(samples)
    assert honest(samples) == before
    assert problems(samples) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")
def test_another_users_worker_can_take_no_apps_name_and_forge_no_file(collectors, untrusted, publish_worker, proc):
    before = honest(printed(collectors.collect()))
    proc.process(777)
    publish_worker(pid=777, uid=54321, app="shop", proportional_bytes=1e9, packages=["pandas", "evil"])
    publish_worker(pid=666, app="own")
    os.chown(untrusted, 54321, -1)  # one of theirs in this user's directory
    samples = printed(collectors.collect())
    assert_valid(samples)
    assert honest(samples) == before
    assert problems(samples) == 2
    assert not [labels for _, labels, _ in samples if labels[:1] == ("own",)]


def test_a_dead_worker_is_not_counted_and_a_hung_ones_last_state_is(collectors, untrusted, proc, publish_worker):
    publish_worker(
        pid=666, app="shop", sampled=STARTED - 1000, packages=["pandas"]
    )  # it is alive and publishes nothing new
    assert honest(printed(collectors.collect()))["mempressure_app_workers", "shop"] == 2
    (proc.root / "666" / "stat").unlink()
    assert honest(printed(collectors.collect()))["mempressure_app_workers", "shop"] == 1
    assert untrusted.exists()
    assert stat.S_ISREG(untrusted.stat().st_mode)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.one_of(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0, 2.0**62]), st.floats(-2, 2.0**62)),
            min_size=len(VALUES),
            max_size=len(VALUES),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_with_any_numbers_of_a_worker_the_scrape_is_valid_and_no_counter_falls(
    collectors, untrusted, make_worker, history
):
    before, last = honest(printed(collectors.collect())), {}
    for values in history:
        untrusted.write_bytes(joined(catalog_of(make_worker), values))
        samples = printed(collectors.collect())
        assert_valid(samples)
        assert honest(samples) == before
        counters = {(name, *labels): value for name, labels, value in samples if name.endswith("_total")}
        # A refused state leaves its app out of a scrape; its totals are back with the next valid one.
        assert all(counters.get(series, value) >= value for series, value in last.items())
        last |= counters
