import pytest

from mempressure.control.monitor import MemoryMonitor
from mempressure.control.records import Cycle, Pressure
from mempressure.measure.reading import MemoryReading
from mempressure.state.node import AppReading, NodeReading
from mempressure_actuator.loop import standstill
from mempressure_actuator.loop.standstill import Standstill
from mempressure_actuator.metrics import Metrics
from tests.support.clock import Clock

SHOP = Pressure("app", "shop", "webhook")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(1000.0)
    monkeypatch.setattr(standstill.time, "monotonic", clock)
    return clock


@pytest.fixture
def metrics():
    return Metrics(node="n1", leases=lambda: 0, queue_length=lambda: 0)


@pytest.fixture
def still(metrics):
    return Standstill(most=2, pause=60.0, metrics=metrics)


@pytest.fixture
def look(make_worker, tmp_path):
    """Look at an app "shop" with this usage in percent, and with these packages loaded."""
    monitor = MemoryMonitor()

    def looked(percent=85, packages=("pandas",)):
        app = AppReading("shop", 0, tmp_path, (make_worker(packages=packages),), MemoryReading(100, 100 - percent))
        reading = NodeReading(1e9, MemoryReading(100, 50), {"shop": app})
        return reading, monitor.observe(reading)

    return looked


def cycle(outcome, scope="app", app="shop"):
    numbers = {"pressure_since": 0.0, "started": 0.0, "usage_before": 0.9, "used_before": 9}
    made = Cycle(id="1", scope=scope, app=app, trigger="webhook", alert_key="", strategy="high", **numbers)
    made.outcome = outcome
    return made


def value(metric):
    return metric._value.get()


def test_a_scope_is_left_alone_and_told_of_once_until_something_changes(still, look, metrics, clock, caplog):
    for _ in range(2):
        assert still.spared([SHOP], *look()) == [SHOP]
        still.note(cycle("futile"), *look())
    for _ in range(3):
        assert still.spared([SHOP, Pressure("host", "", "webhook")], *look()) == [Pressure("host", "", "webhook")]
    assert caplog.text.count("left alone: scope=app app='shop' reason=2 cycles in a row brought nothing") == 1
    assert value(metrics.brakes.labels("futile_cycles")) == 1
    assert value(metrics.stopped_scopes) == 1
    assert still.spared([SHOP], *look(packages=("numpy",))) == [SHOP]
    assert still.spared([SHOP], *look(percent=95)) == [SHOP]
    assert value(metrics.stopped_scopes) == 0


def test_after_the_pause_one_more_cycle_is_tried(still, look, metrics, clock):
    for _ in range(2):
        still.note(cycle("futile"), *look())
    assert still.spared([SHOP], *look()) == []
    clock.now += 60
    assert still.spared([SHOP], *look()) == [SHOP]
    still.note(cycle("futile"), *look())
    assert still.spared([SHOP], *look()) == []
    assert value(metrics.brakes.labels("futile_cycles")) == 2


def test_a_cycle_that_brings_something_ends_it(still, look, clock):
    still.note(cycle("futile"), *look())
    still.note(cycle("effective"), *look())
    still.note(cycle("futile"), *look())
    assert still.spared([SHOP], *look()) == [SHOP]


def test_the_loads_of_the_host_are_those_of_every_app(still, look, clock):
    host = Pressure("host", "", "webhook")
    for _ in range(2):
        still.note(cycle("futile", "host", ""), *look())
    assert still.spared([host], *look()) == []
    assert still.spared([host], *look(packages=())) == [host]
