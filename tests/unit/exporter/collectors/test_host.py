import pytest

from mempressure_exporter.collectors import COLLECTORS
from tests.support.builders.samples import succeeded

GIB = 1 << 30
MIB = 1 << 20
STARTED = 1e9


def test_the_host(scrape, proc, clock):
    found = scrape()
    expected = {
        "host_memory_total_bytes": 8 * GIB,
        "host_memory_available_bytes": 4 * GIB,
        "host_memory_used_bytes": 4 * GIB,
        "host_memory_used_ratio": 0.5,
        "host_swap_total_bytes": 2 * GIB,
        "host_swap_used_bytes": GIB,
        "host_swap_free_bytes": GIB,
        "host_swap_used_ratio": 0.5,
        "host_pressure_waiting_seconds_total": 12.5,
        "host_pressure_stalled_seconds_total": 3.25,
        "sample_timestamp_seconds": STARTED,
    }
    assert {name: found[name,] for name in expected} == expected
    levels = {name[1]: value for name, value in found.items() if name[0] == "host_level"}
    assert levels == {"low": 0, "medium": 1, "high": 0, "critical": 0}
    assert ("host_trend_bytes_per_second",) not in found


def test_the_hosts_trend_needs_half_a_minute(scrape, proc, clock):
    for available in (4 << 20, (4 << 20) - 1024, (4 << 20) - 2048, (4 << 20) - 3072):
        proc.meminfo(MemAvailable=available)
        found = scrape()
        clock.now += 10
    assert found["host_trend_bytes_per_second",] == pytest.approx(MIB / 10)


def test_a_failure_to_measure_the_host_is_logged_once(scrape, proc, caplog):
    (proc.root / "meminfo").unlink()
    found = scrape()
    scrape()
    assert succeeded(found) == set(COLLECTORS) - {"host"}
    assert ("sample_timestamp_seconds",) not in found
    assert len([message for message in caplog.messages if "collector=host" in message]) == 1
