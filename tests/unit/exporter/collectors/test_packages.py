import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from mempressure.state.files import publish
from mempressure.state.reader import load
from mempressure.state.records import PackageState, WorkerState
from mempressure_exporter.collectors.packages import PackagesCollector
from mempressure_exporter.counters import RETAIN_SECONDS
from mempressure_exporter.package_series import PACKAGE_FAMILIES
from mempressure_exporter.series_limit import SeriesLimit
from tests.support.clock import Clock

held = st.builds(
    PackageState,
    name=st.sampled_from("abcd"),
    mechanism=st.just("stop"),
    source=st.just("process"),
    timeout=st.just(60.0),
    last_used=st.integers(0, 2),
    loads=st.integers(0, 2),
    memory_bytes=st.integers(-1, 1),
)
packages = st.lists(held, max_size=4, unique_by=lambda package: package.name)


def worker(packages):
    return WorkerState(app="shop", pid=1, start_ticks=7, pid_namespace="pid:[1]", started=0.0, packages=packages)


@given(st.lists(st.tuples(packages, st.sampled_from([1.0, RETAIN_SECONDS + 1]))), st.sampled_from([20, 100]))
def test_what_is_kept_from_scrape_to_scrape_is_what_would_be_written_anew(steps, max_series):
    """Packages change, go, are forgotten and come again, and the bound bites and lets go."""
    clock = Clock(1e9)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "1.state")
        source = SimpleNamespace(clock=clock, workers=lambda: [load(path, owner=os.geteuid())])
        bound = SeriesLimit(max_series)
        collector = PackagesCollector(source, bound)
        dropped = 0
        for published, seconds in steps:
            clock.sleep(seconds)
            publish(worker(published), path)
            printed = {lines.family: lines.text for lines in collector.collect()}
            everything = list(collector._table.packages.values())
            shown = list(SeriesLimit(max_series).fitting(everything, size=lambda package: package.series))
            for place, family in enumerate(PACKAGE_FAMILIES):
                assert printed.get(family.name, "") == "".join(package.texts[place] for package in shown)
            dropped += sum(package.series for package in everything[len(shown) :])
            assert bound.dropped == dropped
