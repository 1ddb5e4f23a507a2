import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.measure.reading import UNKNOWN
from mempressure.mechanisms import least_mild
from mempressure.state.files import publish
from mempressure.state.reader import load
from mempressure.state.records import PackageState, WorkerState
from mempressure_exporter import package_table
from mempressure_exporter.counters import RETAIN_SECONDS
from mempressure_exporter.package_series import PACKAGE_FAMILIES
from mempressure_exporter.package_table import REMEMBER_SECONDS, PackageTable

STARTED = 1000.0
_STATES = tempfile.TemporaryDirectory()
"""Where they are published: what was read last is kept by file."""


def package(name="pandas", mechanism="stop", source="process", **values):
    return PackageState(name=name, mechanism=mechanism, source=source, timeout=60.0, **values)


def published(*packages, pid=1, started=STARTED + 1, app="shop", ticks=7, namespace="pid:[1]"):
    state = WorkerState(
        app=app, pid=pid, start_ticks=ticks, pid_namespace=namespace, started=started, packages=packages
    )
    path = Path(_STATES.name, app, namespace, f"{pid}.state")
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(state, path)
    return load(path, owner=os.geteuid())


def worker(*, pid=1, started=STARTED + 1, app="shop", ticks=7, namespace="pid:[1]", **values):
    return published(package(**values), pid=pid, started=started, app=app, ticks=ticks, namespace=namespace)


def loads_after(*scrapes, started=STARTED, spacing=15.0):
    """Return the loads counted after each scrape, of which each is a list of workers."""
    table = PackageTable(started=started, max_packages=100)
    found = []
    for number, workers in enumerate(scrapes):
        table.update(workers, now=STARTED + spacing * number)
        found.append(table.packages["shop", "pandas"].totals.loads if table.packages else None)
    return found


BEFORE, AFTER = STARTED - 1, STARTED + 1


@pytest.mark.parametrize(
    ("scrapes", "expected"),
    [
        ([[]], [None]),
        # One that was there before the exporter: what it has counted is the baseline.
        ([[worker(started=BEFORE, loads=5)], [worker(started=BEFORE, loads=7)]], [0, 2]),
        # One that started after it counts from 0.
        ([[worker(started=AFTER, loads=5)], [worker(started=AFTER, loads=7)]], [5, 7]),
        # Nothing new, nothing added.
        ([[worker(loads=5)], [worker(loads=5)], [worker(loads=5)]], [5, 5, 5]),
        # Its end loses nothing.
        ([[worker(loads=5)], [], []], [5, 5, 5]),
        # Its successor counts from 0, also where it has its pid.
        ([[worker(loads=5)], [worker(pid=2, loads=1)]], [5, 6]),
        ([[worker(loads=5)], [worker(ticks=8, loads=6)]], [5, 11]),
        ([[worker(loads=5)], [worker(namespace="pid:[2]", loads=6)]], [5, 11]),
        # Several are summed, each by its own.
        ([[worker(loads=5), worker(pid=2, loads=1)], [worker(loads=6), worker(pid=2, loads=4)]], [6, 10]),
        # One that could not be read for a while is not counted twice.
        ([[worker(loads=5)], [], [], [worker(loads=6)]], [5, 5, 5, 6]),
        # A program that was replaced by exec keeps pid and start, and counts from 0 again.
        ([[worker(loads=5)], [worker(loads=2)], [worker(loads=3)]], [5, 7, 8]),
    ],
)
def test_loads(scrapes, expected):
    assert loads_after(*scrapes) == expected


def test_a_package_that_an_older_worker_tracks_later_counts_from_0():
    table = PackageTable(started=STARTED, max_packages=100)
    table.update([published(started=BEFORE)], now=STARTED)
    table.update([worker(started=BEFORE, loads=5)], now=STARTED + 15)
    assert table.packages["shop", "pandas"].totals.loads == 5


@pytest.mark.parametrize(("mechanism", "counted"), [("stop", True), ("recycle", False)])
def test_unloads_are_counted_by_mechanism_except_those_that_end_the_worker(mechanism, counted):
    table = PackageTable(started=STARTED, max_packages=100)
    table.update([worker(mechanism=mechanism)], now=STARTED)
    totals = table.packages["shop", "pandas"].totals
    assert totals.unloads == totals.reclaimed_bytes == ({mechanism: 0} if counted else {})
    table.update(
        [worker(mechanism=mechanism, unloads=2, reclaimed_bytes=1e6, load_seconds=0.5, refaults=1)], now=STARTED
    )
    assert totals.unloads == ({mechanism: 2} if counted else {})
    assert totals.reclaimed_bytes == ({mechanism: 1e6} if counted else {})
    assert (totals.load_seconds, totals.refaults, totals.loads) == (0.5, 1, 0)


def test_a_package_whose_mechanism_changes_keeps_its_totals():
    table = PackageTable(started=STARTED, max_packages=100)
    table.update([worker(mechanism="stop", unloads=2)], now=STARTED)
    table.update([worker(mechanism="recycle", unloads=2)], now=STARTED)
    assert table.packages["shop", "pandas"].totals.unloads == {"stop": 2}
    table.update([worker(mechanism="stop", unloads=3)], now=STARTED)
    assert table.packages["shop", "pandas"].totals.unloads == {"stop": 3}


def test_apps_do_not_mix():
    table = PackageTable(started=STARTED, max_packages=100)
    table.update([worker(loads=1), worker(app="till", loads=2)], now=STARTED)
    table.update([worker(loads=1), worker(app="till", loads=4)], now=STARTED)
    assert {name: package.totals.loads for name, package in table.packages.items()} == {
        ("shop", "pandas"): 1,
        ("till", "pandas"): 4,
    }


def test_packages_beyond_the_limit_are_not_kept_and_the_first_ones_stay():
    table = PackageTable(started=STARTED, max_packages=2)
    for _ in range(3):
        table.update([worker(app=f"app-{n}", pid=n, loads=1) for n in range(5)], now=STARTED)
    assert {name: package.totals.loads for name, package in table.packages.items()} == {
        ("app-0", "pandas"): 1,
        ("app-1", "pandas"): 1,
    }


def test_workers_and_totals_that_were_not_seen_for_long_are_forgotten():
    table = PackageTable(started=STARTED, max_packages=100)
    table.update([worker(loads=1)], now=STARTED)
    table.update([], now=STARTED)
    table.update([], now=STARTED + REMEMBER_SECONDS - 1)
    assert table._workers
    table.update([], now=STARTED + REMEMBER_SECONDS)
    assert not table._workers
    table.update([], now=STARTED + RETAIN_SECONDS - 1)
    assert table.packages
    table.update([], now=STARTED + RETAIN_SECONDS)
    assert not table.packages


def test_a_package_that_is_held_again_is_not_forgotten():
    table = PackageTable(started=STARTED, max_packages=100)
    table.update([worker(pid=1, loads=1)], now=STARTED)
    table.update([], now=STARTED + 1)
    for now in (STARTED + 2, STARTED + RETAIN_SECONDS + 10):
        table.update([worker(pid=2, loads=1)], now=now)
    assert table.packages["shop", "pandas"].totals.loads == 2


def test_of_too_many_workers_the_longest_unseen_are_forgotten_and_the_living_never(monkeypatch):
    monkeypatch.setattr(package_table, "MAX_REMEMBERED", 3)
    table = PackageTable(started=STARTED, max_packages=100)
    for second in range(10):
        table.update([worker(pid=100, loads=1), worker(pid=second, loads=1)], now=STARTED + second)
        assert len(table._workers) <= 3
    assert table.packages["shop", "pandas"].totals.loads == 11
    living = [worker(pid=pid, loads=1) for pid in range(1000, 1010)]
    table.update(living, now=STARTED + 20)
    table.update(living, now=STARTED + 30)
    assert table.packages["shop", "pandas"].totals.loads == 21


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 5)), max_size=4), max_size=20),
)
def test_the_total_is_what_workers_did_though_they_come_go_and_hide(history):
    """Each step lets some of four workers load, and hides some; in the end all that was loaded has been counted."""
    table = PackageTable(started=STARTED, max_packages=100)
    done = [0, 0, 0, 0]
    for number, step in enumerate(history):
        hidden = set()
        for pid, hides, loads in step:
            done[pid] += loads
            if hides:
                hidden.add(pid)
        visible = [worker(pid=pid, loads=done[pid]) for pid in range(4) if pid not in hidden]
        table.update(visible, now=STARTED + number)
    table.update([worker(pid=pid, loads=done[pid]) for pid in range(4)], now=STARTED + len(history))
    assert table.packages["shop", "pandas"].totals.loads == sum(done)


def test_a_package_that_its_worker_no_longer_publishes_keeps_its_totals():
    table = PackageTable(started=STARTED, max_packages=100)
    for held in ([package(loads=5)], [], [package("sympy")], [package(loads=6)]):
        table.update([published(*held)], now=STARTED)
    assert table.packages["shop", "pandas"].totals.loads == 6


def test_packages_that_were_beyond_the_limit_are_added_when_there_is_room():
    table = PackageTable(started=STARTED, max_packages=1)
    table.update([worker(pid=1, app="a"), worker(pid=2, app="b")], now=STARTED)
    for now in (STARTED + 1, STARTED + RETAIN_SECONDS + 1, STARTED + RETAIN_SECONDS + 2):
        table.update([worker(pid=2, app="b", loads=3)], now=now)
    assert list(table.packages) == [("b", "pandas")]
    assert table.packages["b", "pandas"].totals.loads == 0  # as of a worker that was there before it was counted


def test_memory_is_summed_in_whole_bytes():
    """Sums are kept up to date: what fractions add up to would depend on the order of the changes."""
    table = PackageTable(started=STARTED, max_packages=100)
    for size in (0.1, 2.0**60, 0.3, 7.9):
        table.update([worker(pid=1, memory_bytes=size), worker(pid=2, memory_bytes=0.2)], now=STARTED)
    assert table.packages["shop", "pandas"].values[0] == (("process", 7),)


def test_what_workers_have_from_their_parent_counts_once():
    table = PackageTable(started=STARTED, max_packages=100)
    for size in (40, 50, 30):
        workers = [worker(pid=pid, source="parent", memory_bytes=each) for pid, each in ((1, size), (2, 35))]
        table.update(workers, now=STARTED)
        assert table.packages["shop", "pandas"].values[0] == (("parent", max(size, 35)),)


held = st.builds(
    package,
    st.sampled_from(["pandas", "sympy", "numpy"]),
    st.sampled_from(["stop", "recycle"]),
    st.sampled_from(["process", "import", "parent"]),
    loaded=st.integers(0, 2),
    memory_bytes=st.integers(-1, 5),
    processes_id=st.sampled_from(["", "a1"]),
    waiting_calls=st.integers(0, 2),
    result_bytes=st.integers(0, 2),
    last_used=st.sampled_from([UNKNOWN, 1.0, 2.0]),
    loads=st.integers(0, 3),
    verdict=st.sampled_from(["", "stop", "recycle"]),
)
holdings = st.lists(held, max_size=3, unique_by=lambda package: package.name)


@given(st.lists(st.dictionaries(st.integers(1, 3), holdings), max_size=8))
def test_gauges_are_always_those_of_the_living_workers(history):
    table = PackageTable(started=STARTED, max_packages=100)
    for number, step in enumerate(history):
        workers = [published(*packages, pid=pid) for pid, packages in step.items()]
        table.update(workers, now=STARTED + number)
        found = {
            (family.name.removeprefix("mempressure_package_"), "shop", each.name, *filter(None, [label])): value
            for each in table.packages.values()
            for family, values in zip(PACKAGE_FAMILIES, each.values, strict=True)
            for label, value in values
            if family.kind == "gauge"
        }
        assert table.series == sum(each.series for each in table.packages.values())
        assert found == gauges(step)


def gauges(step):
    """Add up from scratch."""
    packages = [package for packages in step.values() for package in packages]
    found = {}
    for name in {each.name for each in packages}:
        values = gauges_of([each for each in packages if each.name == name])
        found |= {(metric, "shop", name, *labels): value for (metric, *labels), value in values.items()}
    return found


def gauges_of(packages):
    found = {("loaded_workers",): sum(each.loaded > 0 for each in packages)}
    for each in once(packages):
        if each.source == "process":
            found["processes",] = found.get(("processes",), 0) + each.loaded
            found["waiting_calls",] = sum(each.waiting_calls for each in packages)
        if each.memory_bytes >= 0:
            sizes = (found.get(("memory_bytes", each.source), 0), each.memory_bytes)
            found["memory_bytes", each.source] = max(sizes) if each.source == "parent" else sum(sizes)
    if results := sum(each.result_bytes for each in packages):
        found["result_bytes",] = results
    if (last_used := max(each.last_used for each in packages)) >= 0:
        found["last_used_timestamp_seconds",] = last_used
    if verdict := least_mild(each.verdict for each in packages):
        found["verdict", verdict] = 1
    return found


def once(packages):
    """Return one state of each set of processes; all were published at the same time."""
    sets = {}
    for number, each in enumerate(packages):
        sets.setdefault(each.processes_id or number, []).append(each)
    return [
        max(each, key=lambda one: (one.memory_bytes > 0 or not one.loaded, one.memory_bytes, one.loaded, one.source))
        for each in sets.values()
    ]


def test_a_worker_that_ends_when_others_get_room_is_removed():
    table = PackageTable(started=STARTED, max_packages=2)
    table.update([worker(pid=1, app="a"), worker(pid=2, app="b")], now=STARTED)
    for now in (STARTED + 1, STARTED + RETAIN_SECONDS + 1):  # what a had is forgotten
        table.update([worker(pid=2, app="b")], now=now)
    table.update([], now=STARTED + RETAIN_SECONDS + 2)
    assert not table.packages["b", "pandas"].holders
