import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from mempressure.state.files import publish
from mempressure.state.reader import load
from mempressure.state.records import PackageState, WorkerState
from mempressure_exporter.collectors import Collectors
from mempressure_exporter.collectors.packages import PackagesCollector
from mempressure_exporter.counters import RETAIN_SECONDS
from mempressure_exporter.package_series import PACKAGE_FAMILIES
from mempressure_exporter.series_limit import SeriesLimit
from tests.support.builders.samples import series_of
from tests.support.doubles.clock import Clock

MIB = 1 << 20
STARTED = 1e9
WORKER = {"app": "shop", "pid": 1, "start_ticks": 7, "pid_namespace": "pid:[1]", "started": 0.0}


def test_packages_are_summed_over_workers(scrape, proc, publish_worker, package):
    proc.process(101)
    proc.process(102)
    counts = {"loads": 3.0, "refaults": 1.0, "load_seconds": 0.5, "unloads": 2.0, "reclaimed_bytes": 5.0 * MIB}
    pandas = package(loaded=1.0, memory_bytes=60.0 * MIB, last_used=STARTED - 5, **counts)
    sympy = package("sympy", mechanism="recycle", source="import", memory_bytes=20.0 * MIB, unloads=9.0)
    publish_worker(pid=101, started=STARTED + 1, packages=[pandas, sympy])
    idle = package(loaded=0.0, memory_bytes=0.0, last_used=STARTED - 50)
    unknown = package("matplotlib", memory_bytes=-1.0)
    publish_worker(pid=102, started=STARTED + 1, packages=[idle, unknown])
    found = {name: value for name, value in scrape().items() if name[0].startswith("package_")}
    for name in ("package_loads_total", "package_refaults_total", "package_load_seconds_total"):
        assert found.pop((name, "shop", "sympy")) == found.pop((name, "shop", "matplotlib")) == 0
    assert found == {
        ("package_memory_bytes", "shop", "pandas", "process"): 60 * MIB,
        ("package_memory_bytes", "shop", "sympy", "import"): 20 * MIB,
        ("package_loaded_workers", "shop", "pandas"): 1,
        ("package_loaded_workers", "shop", "sympy"): 0,
        ("package_loaded_workers", "shop", "matplotlib"): 0,
        ("package_processes", "shop", "pandas"): 1,
        ("package_processes", "shop", "matplotlib"): 0,
        ("package_waiting_calls", "shop", "pandas"): 0,
        ("package_waiting_calls", "shop", "matplotlib"): 0,
        ("package_last_used_timestamp_seconds", "shop", "pandas"): STARTED - 5,
        ("package_loads_total", "shop", "pandas"): 3,
        ("package_refaults_total", "shop", "pandas"): 1,
        ("package_load_seconds_total", "shop", "pandas"): 0.5,
        ("package_unloads_total", "shop", "pandas", "stop"): 2,
        ("package_reclaimed_bytes_total", "shop", "pandas", "stop"): 5 * MIB,
        ("package_unloads_total", "shop", "matplotlib", "stop"): 0,
        ("package_reclaimed_bytes_total", "shop", "matplotlib", "stop"): 0,
    }


def test_processes_that_workers_share_are_summed_once_in_all_metrics(scrape, proc, publish_worker, package):
    shared = {"loaded": 2.0, "memory_bytes": 60.0 * MIB, "proportional_bytes": 62.0 * MIB, "processes_id": "a1"}
    for pid, waiting, results in ((101, 1.0, 0.0), (102, 2.0, 5.0 * MIB), (103, 0.0, 3.0 * MIB)):
        proc.process(pid)
        packages = [package(waiting_calls=waiting, result_bytes=results, last_used=STARTED - 5, **shared)]
        publish_worker(pid=pid, budget_bytes=1 << 30, proportional_bytes=10.0 * MIB, packages=packages)
    found = scrape()
    assert found["package_memory_bytes", "shop", "pandas", "process"] == 60 * MIB
    assert found["package_processes", "shop", "pandas"] == 2
    assert found["package_waiting_calls", "shop", "pandas"] == 3
    assert found["package_result_bytes", "shop", "pandas"] == 8 * MIB
    assert found["app_memory_used_bytes", "shop"] == 92 * MIB
    assert found["app_role_memory_bytes", "shop", "package process", "unsplit"] == 60 * MIB
    assert found["app_role_memory_bytes", "shop", "package process", "shared"] == 2 * MIB


def test_a_packages_memory_measured_in_two_ways_is_two_series(scrape, proc, publish_worker, package):
    for pid, source, size in ((101, "process", 10.0), (102, "import", 20.0), (103, "import", 5.0)):
        proc.process(pid)
        publish_worker(pid=pid, packages=[package(source=source, memory_bytes=size)])
    found = scrape()
    assert found["package_memory_bytes", "shop", "pandas", "process"] == 10
    assert found["package_memory_bytes", "shop", "pandas", "import"] == 25


def test_where_workers_verdicts_differ_the_least_mild_is_shown(scrape, proc, publish_worker, package):
    verdicts = {101: ("", "stop"), 102: ("stop", "trim"), 103: ("recycle", "stop"), 104: ("", "rogue")}
    for pid, (pandas, sympy) in verdicts.items():
        proc.process(pid)
        rows = [package(verdict=pandas), package("sympy", verdict=sympy), package("polars")]
        publish_worker(pid=pid, packages=rows)
    assert {name: value for name, value in scrape().items() if name[0] == "package_verdict"} == {
        ("package_verdict", "shop", "pandas", "recycle"): 1,
        ("package_verdict", "shop", "sympy", "stop"): 1,
    }


def test_counters_outlive_the_worker_and_gauges_do_not(scrape, proc, publish_worker, runtime_dir, package):
    proc.process(101)
    publish_worker(started=STARTED + 1, packages=[package(loads=3.0)])
    scrape()
    (runtime_dir / str(os.geteuid()) / "101.state").unlink()
    found = scrape()
    assert found["package_loads_total", "shop", "pandas"] == 3
    assert {name[0] for name in found if "shop" in name} == {
        *("package_loads_total", "package_refaults_total", "package_load_seconds_total"),
        *("package_unloads_total", "package_reclaimed_bytes_total"),
    }


def test_what_is_unknown_is_never_printed_as_a_number(scrape, proc, publish_worker, package):
    proc.process(101)
    publish_worker(packages=[package(memory_bytes=-1.0)])
    assert -1 not in scrape().values()


def test_series_beyond_the_limit_are_dropped_and_counted_and_the_first_ones_stay(
    configure, proc, publish_worker, clock, package
):
    proc.process(101)
    publish_worker(packages=[package(f"package-{number:02}") for number in range(10)])
    each = 9  # loaded, memory, processes, waiting, loads, refaults, load seconds, unloads, reclaimed
    running = Collectors(configure(), proc=proc.path, clock=clock, max_series=3 * each + 2)
    for scrapes in (1, 2):
        found = series_of(running)
        assert {name[2] for name in found if name[0].startswith("package_")} == {
            *("package-00", "package-01", "package-02"),
        }
        assert found["series_dropped_total",] == 7 * each * scrapes
    publish_worker(packages=[package(f"package-{number:02}") for number in reversed(range(10))])
    assert ("package_loaded_workers", "shop", "package-00") in series_of(running)


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
held_by_a_worker = st.lists(held, max_size=4, unique_by=lambda each: each.name)


@given(st.lists(st.tuples(held_by_a_worker, st.sampled_from([1.0, RETAIN_SECONDS + 1]))), st.sampled_from([20, 100]))
def test_kept_lines_are_those_that_would_be_written_anew(steps, max_series):
    """Packages change, end, are forgotten and come again, below and above the limit of series."""
    clock = Clock(1e9)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "1.state")
        source = SimpleNamespace(clock=clock, workers=lambda: [load(path, owner=os.geteuid())])
        bound = SeriesLimit(max_series)
        collector = PackagesCollector(source, bound)
        dropped = 0
        for published, seconds in steps:
            clock.sleep(seconds)
            publish(WorkerState(**WORKER, packages=published), path)
            printed = {lines.family: lines.text for lines in collector.collect()}
            everything = list(collector._table.packages.values())
            shown = list(SeriesLimit(max_series).fitting(everything, size=lambda package: package.series))
            for place, family in enumerate(PACKAGE_FAMILIES):
                assert printed.get(family.name, "") == "".join(package.texts[place] for package in shown)
            dropped += sum(package.series for package in everything[len(shown) :])
            assert bound.dropped == dropped
