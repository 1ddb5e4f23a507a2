"""Fixtures of the collectors: scrapes of a machine of the test's own."""

import pytest

from mempressure.config.configuration import load_configuration
from mempressure.state.records import PackageState
from mempressure_exporter.collectors import Collectors
from tests.support.builders.samples import series_of
from tests.support.doubles.clock import Clock


@pytest.fixture
def clock():
    return Clock(1e9)


@pytest.fixture
def configure(runtime_dir, state_dir, tmp_path):
    (tmp_path / "none.json").write_text("{}")
    directories = {
        "MEMPRESSURE_CONFIG": str(tmp_path / "none.json"),
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(state_dir),
        "MEMPRESSURE_NODE": "n1",
    }
    return lambda **variables: load_configuration(environ=directories | variables)


@pytest.fixture
def scrape(configure, proc, clock):
    """One scrape after another by the same collectors, as `series_of` returns them."""
    collectors = Collectors(configure(), proc=proc.path, clock=clock)
    return lambda: series_of(collectors)


@pytest.fixture
def package():
    """A builder of a worker's state of a package, pandas by default."""

    def build(name="pandas", **options):
        return PackageState(**{"name": name, "mechanism": "stop", "source": "process", "timeout": 60.0, **options})

    return build
