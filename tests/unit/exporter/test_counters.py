from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.state.node import AppReading
from mempressure.state.records import WorkerState
from mempressure_exporter import counters
from mempressure_exporter.counters import RETAIN_SECONDS, Baselines, CgroupCounters, PackageProcessCounters

STARTED = 1000.0
OLD, NEW = STARTED - 60, STARTED + 5


def app_of(*workers, name="shop"):
    return AppReading(name, 0, Path("/nowhere"), tuple(workers), None)


def worker(pid, *, started=NEW, **values):
    return WorkerState(app="shop", pid=pid, start_ticks=pid, pid_namespace="pid:[1]", started=started, **values)


def in_cgroups(*workers, name="shop"):
    """Return an app whose workers are given as (cgroup, kills, waiting seconds)."""
    states = [
        worker(pid, cgroup_id=cgroup, cgroup_oom_kill_events=float(kills), cgroup_waiting_seconds=float(waiting))
        for pid, (cgroup, kills, waiting) in enumerate(workers, start=1)
    ]
    return app_of(*states, name=name)


def with_package_processes(*workers, name="shop"):
    """Return an app whose workers are given as (pid, started, deaths, start failures)."""
    states = [
        worker(pid, started=started, process_deaths=deaths, process_start_failures=failures)
        for pid, started, deaths, failures in workers
    ]
    return app_of(*states, name=name)


@pytest.fixture
def three_baselines(monkeypatch):
    """At most three baselines are kept."""
    monkeypatch.setattr(counters, "MAX_BASELINES", 3)


def exchange(baselines, keys, now, *, counts=(5.0,)):
    """Return the previous counts of each key in one scrape."""
    before = {key: baselines.exchange(key, counts, first=(0.0,), now=now) for key in keys}
    baselines.drop_old(now)
    return before


def test_a_key_in_use_is_never_dropped_however_many_new_ones_come(three_baselines):
    baselines = Baselines()
    assert exchange(baselines, ["a"], 1.0) == {"a": (0.0,)}
    for now in (2.0, 3.0, 4.0):
        assert exchange(baselines, ["a", *range(100)], now)["a"] == (5.0,)
        assert len(baselines._seen) <= 3
    assert exchange(baselines, ["a"], 5.0, counts=(6.0,)) == {"a": (5.0,)}


def test_a_new_key_without_room_has_no_increase(three_baselines):
    baselines = Baselines()
    assert exchange(baselines, "abcd", 1.0) == {"a": (0.0,), "b": (0.0,), "c": (0.0,), "d": (5.0,)}
    found = exchange(baselines, "abcd", 2.0, counts=(7.0,))
    assert found == {"a": (5.0,), "b": (5.0,), "c": (5.0,), "d": (7.0,)}


def test_a_new_key_replaces_the_one_unseen_for_longest(three_baselines):
    baselines = Baselines()
    exchange(baselines, "abc", 1.0)
    exchange(baselines, "ab", 2.0)
    assert exchange(baselines, "abd", 3.0) == {"a": (5.0,), "b": (5.0,), "d": (0.0,)}
    assert list(baselines._seen) == ["a", "b", "d"]


def test_a_key_that_was_not_seen_for_long_is_dropped():
    baselines = Baselines()
    exchange(baselines, "ab", 1.0)
    exchange(baselines, "a", RETAIN_SECONDS)
    exchange(baselines, "a", RETAIN_SECONDS + 1)
    assert list(baselines._seen) == ["a"]


@given(st.lists(st.sets(st.sampled_from("abcdef")), max_size=10))
def test_there_are_never_more_baselines_than_the_limit(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counters, "MAX_BASELINES", 3)
        baselines = Baselines()
        for now, keys in enumerate(steps):
            exchange(baselines, sorted(keys), float(now))
            assert len(baselines._seen) <= 3


def kills_after(*scrapes):
    """Return the kills counted after each scrape, of which each is the app's workers."""
    cgroups, found = CgroupCounters(max_apps=10), []
    for number, workers in enumerate(scrapes):
        cgroups.update([in_cgroups(*workers)] if workers else [], now=STARTED + 15 * number)
        totals = cgroups.totals.get("shop")
        found.append(totals.events.get("oom_kill") if totals else None)
    return found


@pytest.mark.parametrize(
    ("scrapes", "expected"),
    [
        ([[]], [None]),
        # Events from before the cgroup was first seen are not counted.
        ([[(7, 5, 0)], [(7, 6, 0)], [(7, 6, 0)]], [0, 1, 1]),
        # Workers of one cgroup publish the same events, a tick apart.
        ([[(7, 5, 0), (7, 5, 0)], [(7, 6, 0), (7, 5, 0)], [(7, 6, 0), (7, 6, 0)]], [0, 1, 1]),
        # The worker with the newest count ends, the other one lags: no fall, and nothing twice.
        ([[(7, 5, 0)], [(7, 7, 0)], [(7, 6, 0)], [(7, 7, 0)], [(7, 8, 0)]], [0, 2, 2, 2, 3]),
        # Two cgroups are summed.
        ([[(7, 5, 0), (8, 1, 0)], [(7, 6, 0), (8, 3, 0)]], [0, 3]),
        # The cgroup of a container's successor begins at 0: nothing is lost or counted twice.
        ([[(7, 5, 0)], [(7, 6, 0)], [(8, 0, 0)], [(8, 1, 0)]], [0, 1, 1, 2]),
        # The only worker was killed, and its successor in the same cgroup publishes the kill.
        ([[(7, 0, 0)], [], [], [(7, 1, 0)]], [0, 0, 0, 1]),
        # Without a cgroup id, and with a count that is unknown at times.
        ([[(0, 5, 0)], [(0, 6, 0)]], [0, 1]),
        ([[(7, -1, 0)], [(7, 4, 0)], [(7, 5, 0)]], [None, 0, 1]),
        ([[(7, 4, 0)], [(7, -1, 0)], [(7, 5, 0)]], [0, 0, 1]),
    ],
)
def test_kills(scrapes, expected):
    assert kills_after(*scrapes) == expected


def test_what_the_kernel_does_not_count_is_absent():
    cgroups = CgroupCounters(max_apps=10)
    for second, waiting in enumerate((1.5, 2.0)):
        cgroups.update([in_cgroups((7, -1, waiting))], now=STARTED + second)
    assert cgroups.totals["shop"].seconds == {"waiting": 0.5}
    assert cgroups.totals["shop"].events == {}


def test_apps_are_counted_apart_though_they_share_a_cgroup():
    cgroups = CgroupCounters(max_apps=10)
    cgroups.update([in_cgroups((7, 1, 0)), in_cgroups((7, 1, 0), name="till")], now=STARTED)
    cgroups.update([in_cgroups((7, 3, 0)), in_cgroups((7, 2, 0), name="till")], now=STARTED + 1)
    assert {name: totals.events["oom_kill"] for name, totals in cgroups.totals.items()} == {"shop": 2, "till": 1}


def test_apps_beyond_the_limit_are_not_counted_and_the_first_ones_stay():
    cgroups = CgroupCounters(max_apps=2)
    for second in range(3):
        cgroups.update([in_cgroups((7, second, 0), name=name) for name in ("a", "b", "c")], now=STARTED + second)
    assert {name: totals.events["oom_kill"] for name, totals in cgroups.totals.items()} == {"a": 2, "b": 2}


def test_an_app_that_was_not_seen_for_long_is_dropped_with_its_baselines():
    cgroups = CgroupCounters(max_apps=10)
    cgroups.update([in_cgroups((7, 1, 0))], now=STARTED)
    cgroups.update([], now=STARTED + RETAIN_SECONDS - 1)
    assert cgroups.totals
    assert cgroups._baselines._seen
    cgroups.update([], now=STARTED + RETAIN_SECONDS)
    assert not cgroups.totals
    assert not cgroups._baselines._seen


def test_cgroups_that_come_and_go_cost_the_one_that_stays_nothing(three_baselines):
    cgroups = CgroupCounters(max_apps=10)
    for second in range(10):
        cgroups.update([in_cgroups((second, 1, 0), (100, second, 0))], now=STARTED + second)
        assert len(cgroups._baselines._seen) <= 3
    assert cgroups.totals["shop"].events["oom_kill"] == 9


@given(st.lists(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), max_size=4), max_size=15))
def test_totals_are_what_happened_and_never_fall(history):
    """Each step adds kills to some of three cgroups with a worker in each."""
    cgroups, kills, last = CgroupCounters(max_apps=10), dict.fromkeys((1, 2, 3), 5.0), 0.0
    for number, step in enumerate([[], *history]):
        for cgroup, more in step:
            kills[cgroup] += more
        cgroups.update([in_cgroups(*((cgroup, count, 0) for cgroup, count in kills.items()))], now=STARTED + number)
        total = cgroups.totals["shop"].events["oom_kill"]
        assert total >= last
        last = total
    assert last == sum(kills.values()) - 15


@pytest.mark.parametrize(
    ("scrapes", "expected"),
    [
        # A worker's counts from before the exporter started are not an increase; a younger one's are, from 0 on.
        ([[(1, OLD, 5.0, 2.0)], [(1, OLD, 6.0, 2.0)]], (1, 0)),
        ([[(1, NEW, 5.0, 2.0)], [(1, NEW, 6.0, 2.0)]], (6, 2)),
        # Two workers are summed, and the end of one loses nothing.
        ([[(1, NEW, 1.0, 0.0), (2, NEW, 2.0, 1.0)], [(2, NEW, 2.0, 1.0)], [(3, NEW, 0.0, 1.0)]], (3, 2)),
        # A worker that could not be read meanwhile is not counted again.
        ([[(1, NEW, 4.0, 0.0)], [], [(1, NEW, 5.0, 0.0)]], (5, 0)),
        ([[(1, NEW, 4.0, 0.0)], []], (4, 0)),
    ],
    ids=["older", "younger", "two", "unread", "gone"],
)
def test_failures_of_package_processes_count_once(scrapes, expected):
    failures = PackageProcessCounters(started=STARTED, max_apps=10)
    for number, workers in enumerate(scrapes):
        failures.update([with_package_processes(*workers)], now=STARTED + 15 * number)
    totals = failures.totals["shop"]
    assert (totals.deaths, totals.start_failures) == expected


def test_failures_of_an_app_are_dropped_when_it_is_gone_for_long_or_beyond_the_limit():
    failures = PackageProcessCounters(started=STARTED, max_apps=1)
    apps = [with_package_processes((pid, NEW, 1.0, 0.0), name=name) for pid, name in ((1, "shop"), (2, "till"))]
    failures.update(apps, now=STARTED)
    assert list(failures.totals) == ["shop"]
    failures.update([], now=STARTED + RETAIN_SECONDS)
    assert failures.totals == {}
