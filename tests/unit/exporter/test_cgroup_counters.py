from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.state.node import AppReading
from mempressure_exporter import baselines
from mempressure_exporter.baselines import RETAIN_SECONDS
from mempressure_exporter.cgroup_counters import CgroupCounters

STARTED = 1000.0


@pytest.fixture
def app(make_worker):
    """A builder of apps, whose workers are given as (cgroup, kills, waiting seconds)."""

    def build(*workers, name="shop", namespace="pid:[1]"):
        states = [
            make_worker(
                app=name,
                pid=pid,
                cgroup_id=cgroup,
                pid_namespace=namespace,
                cgroup_oom_kill_events=float(kills),
                cgroup_waiting_seconds=float(waiting),
            )
            for pid, (cgroup, kills, waiting) in enumerate(workers, start=1)
        ]
        return AppReading(name, 0, Path("/nowhere"), tuple(states), None)

    return build


def kills_after(app, *scrapes):
    """Return the kills counted after each scrape, of which each is the app's workers."""
    counters, found = CgroupCounters(max_apps=10), []
    for number, workers in enumerate(scrapes):
        counters.update([app(*workers)] if workers else [], now=STARTED + 15 * number)
        totals = counters.totals.get("shop")
        found.append(totals.events.get("oom_kill") if totals else None)
    return found


@pytest.mark.parametrize(
    ("scrapes", "expected"),
    [
        ([[]], [None]),
        # What was before the first sight is not counted.
        ([[(7, 5, 0)], [(7, 6, 0)], [(7, 6, 0)]], [0, 1, 1]),
        # Workers of one cgroup tell of the same events, a tick apart.
        ([[(7, 5, 0), (7, 5, 0)], [(7, 6, 0), (7, 5, 0)], [(7, 6, 0), (7, 6, 0)]], [0, 1, 1]),
        # The one that told last ends, the other lags: no fall, and nothing twice.
        ([[(7, 5, 0)], [(7, 7, 0)], [(7, 6, 0)], [(7, 7, 0)], [(7, 8, 0)]], [0, 2, 2, 2, 3]),
        # Two cgroups are added up.
        ([[(7, 5, 0), (8, 1, 0)], [(7, 6, 0), (8, 3, 0)]], [0, 3]),
        # A container's successor begins at 0: nothing is lost or counted twice.
        ([[(7, 5, 0)], [(7, 6, 0)], [(8, 0, 0)], [(8, 1, 0)]], [0, 1, 1, 2]),
        # The sole worker was killed, and its successor in the same cgroup tells.
        ([[(7, 0, 0)], [], [], [(7, 1, 0)]], [0, 0, 0, 1]),
        # Without an identity, and with a count that is not known at first.
        ([[(0, 5, 0)], [(0, 6, 0)]], [0, 1]),
        ([[(7, -1, 0)], [(7, 4, 0)], [(7, 5, 0)]], [None, 0, 1]),
        ([[(7, 4, 0)], [(7, -1, 0)], [(7, 5, 0)]], [0, 0, 1]),
    ],
)
def test_kills(app, scrapes, expected):
    assert kills_after(app, *scrapes) == expected


def test_what_the_kernel_does_not_count_is_absent(app):
    counters = CgroupCounters(max_apps=10)
    for second, (kills, waiting) in enumerate(((-1, 1.5), (-1, 2.0))):
        counters.update([app((7, kills, waiting))], now=STARTED + second)
    assert counters.totals["shop"].seconds == {"waiting": 0.5}
    assert counters.totals["shop"].events == {}


def test_apps_do_not_mix_though_they_share_a_cgroup(app):
    counters = CgroupCounters(max_apps=10)
    counters.update([app((7, 1, 0)), app((7, 1, 0), name="till")], now=STARTED)
    counters.update([app((7, 3, 0)), app((7, 2, 0), name="till")], now=STARTED + 1)
    assert {name: totals.events["oom_kill"] for name, totals in counters.totals.items()} == {"shop": 2, "till": 1}


def test_apps_beyond_the_bound_are_not_counted_and_the_first_stay(app):
    counters = CgroupCounters(max_apps=2)
    for second in range(3):
        counters.update([app((7, second, 0), name=name) for name in ("a", "b", "c")], now=STARTED + second)
    assert {name: totals.events["oom_kill"] for name, totals in counters.totals.items()} == {"a": 2, "b": 2}


def test_what_nobody_tells_of_is_forgotten(app, monkeypatch):
    counters = CgroupCounters(max_apps=10)
    counters.update([app((7, 1, 0))], now=STARTED)
    counters.update([], now=STARTED + RETAIN_SECONDS - 1)
    assert counters.totals
    assert counters._baselines._seen
    counters.update([], now=STARTED + RETAIN_SECONDS)
    assert not counters.totals
    assert not counters._baselines._seen
    monkeypatch.setattr(baselines, "MAX_BASELINES", 3)
    for second in range(10):
        counters.update([app((second, 1, 0), (100, second, 0))], now=STARTED + second)
        assert len(counters._baselines._seen) <= 3
    assert counters.totals["shop"].events["oom_kill"] == 9


@given(st.lists(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), max_size=4), max_size=15))
def test_totals_are_what_happened_and_never_fall(history):
    """Each step adds kills to some of three cgroups, seen through a worker in each."""
    counters, done, last = CgroupCounters(max_apps=10), dict.fromkeys((1, 2, 3), 5.0), 0.0
    for number, step in enumerate([[], *history]):
        for cgroup, kills in step:
            done[cgroup] += kills
        workers = tuple(_worker(cgroup, kills) for cgroup, kills in done.items())
        counters.update([AppReading("shop", 0, Path("/nowhere"), workers, None)], now=STARTED + number)
        total = counters.totals["shop"].events["oom_kill"]
        assert total >= last
        last = total
    assert last == sum(done.values()) - 15


def _worker(cgroup, kills):
    from mempressure.state.records import WorkerState

    return WorkerState(
        app="shop",
        pid=cgroup,
        start_ticks=1,
        pid_namespace="pid:[1]",
        started=1.0,
        cgroup_id=cgroup,
        cgroup_oom_kill_events=kills,
    )
