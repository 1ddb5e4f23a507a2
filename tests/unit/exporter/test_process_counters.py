from pathlib import Path

import pytest

from mempressure.state.node import AppReading
from mempressure_exporter.baselines import RETAIN_SECONDS
from mempressure_exporter.process_counters import ProcessCounters

STARTED = 1000.0


@pytest.fixture
def app(make_worker):
    """A builder of apps, whose workers are given as (pid, started, deaths, start failures)."""

    def build(*workers, name="shop"):
        states = [
            make_worker(
                app=name, pid=pid, start_ticks=pid, started=started, process_deaths=dead, process_start_failures=failed
            )
            for pid, started, dead, failed in workers
        ]
        return AppReading(name, 0, Path("/nowhere"), tuple(states), None)

    return build


OLD, NEW = STARTED - 60, STARTED + 5


@pytest.mark.parametrize(
    ("scrapes", "expected"),
    [
        # What a worker counted before the exporter started is no increase; what a younger one did is, from 0 on.
        ([[(1, OLD, 5.0, 2.0)], [(1, OLD, 6.0, 2.0)]], (1, 0)),
        ([[(1, NEW, 5.0, 2.0)], [(1, NEW, 6.0, 2.0)]], (6, 2)),
        # Two workers are added up, and one that ends takes nothing along.
        ([[(1, NEW, 1.0, 0.0), (2, NEW, 2.0, 1.0)], [(2, NEW, 2.0, 1.0)], [(3, NEW, 0.0, 1.0)]], (3, 2)),
        # One that could not be read meanwhile is not counted again.
        ([[(1, NEW, 4.0, 0.0)], [], [(1, NEW, 5.0, 0.0)]], (5, 0)),
        ([[(1, NEW, 4.0, 0.0)], []], (4, 0)),
    ],
    ids=["older", "younger", "two", "unread", "gone"],
)
def test_each_increase_counts_once(app, scrapes, expected):
    counters = ProcessCounters(started=STARTED, max_apps=10)
    for number, workers in enumerate(scrapes):
        counters.update([app(*workers)], now=STARTED + 15 * number)
    totals = counters.totals["shop"]
    assert (totals.deaths, totals.start_failures) == expected


def test_an_app_that_is_gone_for_long_and_one_too_many_are_not_kept(app):
    counters = ProcessCounters(started=STARTED, max_apps=1)
    counters.update([app((1, NEW, 1.0, 0.0)), app((2, NEW, 1.0, 0.0), name="till")], now=STARTED)
    assert list(counters.totals) == ["shop"]
    counters.update([], now=STARTED + RETAIN_SECONDS)
    assert counters.totals == {}
