from pathlib import Path

import pytest

from mempressure.config.runtime_settings import Settings
from mempressure.config.thresholds import Thresholds
from mempressure.decide.inventory import inventory
from mempressure.measure.memory_reading import MemoryReading
from mempressure.state.node import AppReading, NodeReading
from mempressure.state.records import WorkerState
from tests.support.builders.package_states import isolated

NOW = 1000.0


def told(**options):
    worker = WorkerState(app="shop", pid=1, start_ticks=1, pid_namespace="ns", started=0.0, **options)
    app = AppReading("shop", 1000, Path("/none"), (worker,), None)
    reading = NodeReading(NOW, MemoryReading(1000, 500), {"shop": app})
    [told] = inventory(reading, Settings(thresholds=Thresholds()))[0]["workers"]
    return told


@pytest.mark.parametrize(
    ("active", "last", "idle"),
    [(0, 990.0, 10.0), (2, 990.0, 0.0), (0, -1.0, None), (0, 1001.0, 0.0)],
)
def test_how_long_a_worker_is_idle_is_told_where_it_is_known(active, last, idle):
    worker = told(active_work=float(active), last_work=last)
    assert (worker["active_work"], worker["idle_seconds"]) == (active, idle)


@pytest.mark.parametrize(
    ("baseline", "private", "processes", "expected"), [(60, 100, 5, 45), (60, 50, 0, 0), (-1, 100, 0, None)]
)
def test_what_replacing_a_worker_would_give_back_is_told_where_it_is_known(baseline, private, processes, expected):
    held = {"private_bytes": float(private), "packages": [isolated(size=processes)]}
    assert told(baseline_bytes=float(baseline), **held)["expected_bytes"] == expected
