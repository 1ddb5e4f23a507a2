import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.state import PackageState, WorkerState
from mempressure_exporter import counters
from mempressure_exporter.counters import REMEMBER_SECONDS, RETAIN_SECONDS, Counters

STARTED = 1000.0


def worker(*, pid=1, started=STARTED + 1, app="shop", ticks=7, namespace="pid:[1]", mechanism="stop", **counts):
    package = PackageState(name="pandas", mechanism=mechanism, source="process", timeout=60.0, **counts)
    return WorkerState(
        app=app, pid=pid, start_ticks=ticks, pid_namespace=namespace, started=started, packages=[package]
    )


def loads_after(*scrapes, started=STARTED, spacing=15.0):
    """Return the loads counted after each scrape, of which each is a list of workers."""
    count = Counters(started=started, max_packages=100)
    found = []
    for number, workers in enumerate(scrapes):
        count.update(workers, now=STARTED + spacing * number)
        totals = count.totals.get(("shop", "pandas"))
        found.append(totals.loads if totals else None)
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


def test_a_package_that_an_old_worker_first_tracks_later_counts_from_0():
    count = Counters(started=STARTED, max_packages=100)
    old = worker(started=BEFORE, loads=5)
    package = old.packages.pop()
    count.update([old], now=STARTED)
    old.packages.append(package)
    count.update([old], now=STARTED + 15)
    assert count.totals["shop", "pandas"].loads == 5


@pytest.mark.parametrize(("mechanism", "counted"), [("stop", True), ("evict", True), ("recycle", False)])
def test_unloads_are_counted_by_mechanism_and_those_that_end_the_worker_are_not(mechanism, counted):
    count = Counters(started=STARTED, max_packages=100)
    count.update([worker(mechanism=mechanism)], now=STARTED)
    totals = count.totals["shop", "pandas"]
    assert totals.unloads == totals.reclaimed_bytes == ({mechanism: 0} if counted else {})
    count.update(
        [worker(mechanism=mechanism, unloads=2, reclaimed_bytes=1e6, load_seconds=0.5, refaults=1)], now=STARTED
    )
    assert totals.unloads == ({mechanism: 2} if counted else {})
    assert totals.reclaimed_bytes == ({mechanism: 1e6} if counted else {})
    assert (totals.load_seconds, totals.refaults, totals.loads) == (0.5, 1, 0)


def test_a_package_whose_mechanism_changes_keeps_what_was_counted():
    count = Counters(started=STARTED, max_packages=100)
    count.update([worker(mechanism="evict", unloads=2)], now=STARTED)
    count.update([worker(mechanism="recycle", unloads=2)], now=STARTED)
    count.update([worker(mechanism="stop", unloads=3)], now=STARTED)
    assert count.totals["shop", "pandas"].unloads == {"evict": 2, "stop": 1}


def test_apps_do_not_mix():
    count = Counters(started=STARTED, max_packages=100)
    count.update([worker(loads=1), worker(app="till", loads=2)], now=STARTED)
    count.update([worker(loads=1), worker(app="till", loads=4)], now=STARTED)
    assert {name: totals.loads for name, totals in count.totals.items()} == {
        ("shop", "pandas"): 1,
        ("till", "pandas"): 4,
    }


def test_packages_beyond_the_bound_are_not_kept_and_the_first_ones_stay():
    count = Counters(started=STARTED, max_packages=2)
    for _ in range(3):
        count.update([worker(app=f"app-{n}", pid=n, loads=1) for n in range(5)], now=STARTED)
    assert {name: totals.loads for name, totals in count.totals.items()} == {
        ("app-0", "pandas"): 1,
        ("app-1", "pandas"): 1,
    }


def test_workers_and_totals_that_nobody_saw_for_long_are_forgotten():
    count = Counters(started=STARTED, max_packages=100)
    count.update([worker(loads=1)], now=STARTED)
    count.update([], now=STARTED + REMEMBER_SECONDS - 1)
    assert count._baselines
    count.update([], now=STARTED + REMEMBER_SECONDS)
    assert not count._baselines
    count.update([], now=STARTED + RETAIN_SECONDS - 1)
    assert count.totals
    count.update([], now=STARTED + RETAIN_SECONDS)
    assert not count.totals


def test_of_too_many_workers_the_longest_unseen_are_forgotten_and_the_living_never(monkeypatch):
    monkeypatch.setattr(counters, "MAX_BASELINES", 3)
    count = Counters(started=STARTED, max_packages=100)
    for second in range(10):
        count.update([worker(pid=100, loads=1), worker(pid=second, loads=1)], now=STARTED + second)
        assert len(count._baselines) <= 3
    assert count.totals["shop", "pandas"].loads == 11
    living = [worker(pid=pid, loads=1) for pid in range(1000, 1010)]
    count.update(living, now=STARTED + 20)
    count.update(living, now=STARTED + 30)
    assert count.totals["shop", "pandas"].loads == 21


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 5)), max_size=4), max_size=20),
)
def test_whatever_workers_come_go_and_hide_the_total_is_what_they_did(history):
    """Each step lets some of four workers load, and hides some; in the end all that was loaded has been counted."""
    count = Counters(started=STARTED, max_packages=100)
    done = [0, 0, 0, 0]
    for number, step in enumerate(history):
        hidden = set()
        for pid, hides, loads in step:
            done[pid] += loads
            if hides:
                hidden.add(pid)
        visible = [worker(pid=pid, loads=done[pid]) for pid in range(4) if pid not in hidden]
        count.update(visible, now=STARTED + number)
    count.update([worker(pid=pid, loads=done[pid]) for pid in range(4)], now=STARTED + len(history))
    assert count.totals["shop", "pandas"].loads == sum(done)
