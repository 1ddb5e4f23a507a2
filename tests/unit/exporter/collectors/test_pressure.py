from mempressure_exporter.collectors import COLLECTORS
from tests.support.builders.samples import succeeded


def test_without_pressure_stall_information_there_are_no_such_samples(scrape, proc):
    (proc.root / "pressure" / "memory").unlink()
    found = scrape()
    assert not [name for name in found if "pressure" in name[0]]
    assert "host" in succeeded(found)


def test_invalid_pressure_stall_information_fails_its_collector_only(scrape, proc):
    proc.write("pressure/memory", "nonsense")
    found = scrape()
    assert succeeded(found) == set(COLLECTORS) - {"pressure"}
    assert found["host_memory_used_ratio",] == 0.5
