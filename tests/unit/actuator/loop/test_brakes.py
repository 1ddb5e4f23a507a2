from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.act.executor import Outcome
from mempressure.config.thresholds import Thresholds
from mempressure.control.monitor import MemoryMonitor
from mempressure.control.records import Cycle, Pressure, record_of
from mempressure.decide.plan import Action
from mempressure.errors import ConfigurationError
from mempressure.measure.memory_reading import MemoryReading
from mempressure.state.node import AppReading, NodeReading
from mempressure.state.records import PackageState
from mempressure_actuator.loop import brakes
from mempressure_actuator.loop.brakes import (
    MINUTE,
    FutileCycles,
    FutilityBrake,
    loads_of,
    reason_not_to_recycle,
    recent,
    recent_recycles,
    require_floor,
)
from mempressure_actuator.metrics import Metrics
from tests.support.doubles.clock import Clock

LOADS = frozenset({(1, 1, "pandas", 1.0)})
times = st.lists(st.floats(0, 1e6), max_size=30)


@pytest.mark.parametrize(
    ("floor", "refused"), [(0.0, ""), (0.6, ""), (0.6001, "warning=0.6"), (0.85, "warning"), (1.0, "warning")]
)
def test_no_threshold_is_below_the_floor(floor, refused):
    if not refused:
        require_floor(Thresholds(), floor=floor)
        return
    with pytest.raises(ConfigurationError, match=rf"{refused}.*below the floor {floor:g}.*send {floor:g} or more"):
        require_floor(Thresholds(), floor=floor)


@pytest.mark.parametrize(
    ("ages", "most", "held"),
    [
        ((), 1, False),
        ((), 0, True),
        ((1,), 1, True),
        ((59.9,), 1, True),
        ((60.0,), 1, False),
        ((1, 2, 61), 3, False),
        ((1, 2, 3), 3, True),
        ((-5,), 1, True),  # the clock was set back
        ((-3600,), 1, False),
    ],
)
def test_recycles_a_minute(ages, most, held):
    reason = reason_not_to_recycle([1000.0 - age for age in ages], now=1000.0, most=most)
    assert bool(reason) == held
    assert not held or f"MEMPRESSURE_RECYCLES_PER_MINUTE={most}" in reason


@given(attempts=st.lists(st.floats(0, 300), max_size=60), most=st.integers(0, 5))
def test_never_more_in_any_minute_than_allowed(attempts, most):
    done = ()
    for now in sorted(attempts):
        if not reason_not_to_recycle(done, now=now, most=most):
            done = (*recent(done, now=now), now)
        assert len(recent(done, now=now)) <= most


@given(times, st.floats(0, 1e6))
def test_what_is_recent_stays_so_until_it_is_a_minute_old(when, now):
    kept = recent(when, now=now)
    assert set(kept) <= set(when)
    assert all(abs(now - time) >= MINUTE for time in set(when) - set(kept))


def test_recycles_before_a_restart_are_known_from_the_history():
    def action(mechanism, result, started, app="shop"):
        return {"mechanism": mechanism, "result": result, "started": started, "app": app}

    history = [
        {"actions": [action("recycle", "done", 990.0), action("stop", "done", 991.0)]},
        {"actions": [action("recycle", "failed", 980.0), action("recycle", "skipped", 985.0)]},
        {"actions": [action("recycle", "done", 900.0), action("recycle", "done", 970.0, "till")]},
        {"actions": [action("recycle", "dry_run", 995.0)]},
    ]
    assert recent_recycles(history, now=1000.0) == {"shop": (990.0, 980.0), "till": (970.0,)}


@pytest.mark.parametrize(
    ("cycles", "changes", "held"),
    [
        (2, {}, False),
        (3, {}, True),
        (4, {}, True),
        (3, {"level": "emergency"}, False),
        (3, {"loads": frozenset()}, False),
        (3, {"now": 159.0}, True),
        (3, {"now": 160.0}, False),
    ],
)
def test_futile_cycles_stop_a_scope_until_something_changes(cycles, changes, held):
    known = FutileCycles()
    for _ in range(cycles):
        known = known.after("futile", level="unload_packages", loads=LOADS, now=100.0)
    now = {"level": "unload_packages", "loads": LOADS, "now": 101.0} | changes
    assert bool(known.reason_to_pause(**now, most=3, pause=60.0)) == held


@pytest.mark.parametrize("outcome", ["effective", "relieved", "dry_run"])
def test_a_cycle_that_brought_something_starts_the_count_anew(outcome):
    known = FutileCycles(5, 100.0, "emergency", LOADS)
    assert known.after(outcome, level="emergency", loads=LOADS, now=101.0) == FutileCycles()


@given(
    outcomes=st.lists(
        st.tuples(st.sampled_from(["futile", "effective"]), st.sampled_from(["high", "emergency"])), max_size=20
    ),
    most=st.integers(1, 4),
)
def test_after_the_pause_one_more_is_tried_and_no_more(outcomes, most):
    known, now = FutileCycles(), 0.0
    for outcome, level in outcomes:
        now += 1
        if known.reason_to_pause(level=level, loads=LOADS, now=now, most=most, pause=60):
            assert known.count >= most
            now += 60
            assert not known.reason_to_pause(level=level, loads=LOADS, now=now, most=most, pause=60)
        before = known
        known = known.after(outcome, level=level, loads=LOADS, now=now)
        if outcome == "futile" and before.count >= most and before.level == level:
            assert known.reason_to_pause(level=level, loads=LOADS, now=now + 1, most=most, pause=60)


def test_loads_change_with_what_is_loaded_and_with_workers(make_worker, tmp_path):
    def loads(*workers):
        return loads_of([AppReading("shop", 0, tmp_path, workers, None)])

    first = loads(make_worker(packages=["pandas"]))
    assert first == loads(make_worker(packages=["pandas"]))
    again = PackageState(name="pandas", mechanism="stop", source="process", timeout=1.0, loaded=1.0, loads=2.0)
    gone = PackageState(name="pandas", mechanism="stop", source="process", timeout=1.0, loaded=0.0)
    others = [
        loads(make_worker(packages=[again])),
        loads(make_worker(packages=[gone])),
        loads(make_worker(pid=102, packages=["pandas"])),
        loads(make_worker(start_ticks=2000, packages=["pandas"])),
    ]
    assert first not in others


@pytest.mark.parametrize("changed", [{"level": "emergency"}, {"loads": frozenset()}])
def test_the_count_starts_anew_where_something_changed(changed):
    before = {"level": "high", "loads": LOADS}
    known = FutileCycles(4, 100.0, **before)
    assert known.after("futile", **before, now=101.0).count == 5
    assert known.after("futile", **before | changed, now=101.0).count == 1


SHOP = Pressure("app", "shop", "webhook")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(1000.0)
    monkeypatch.setattr(brakes.time, "monotonic", clock)
    return clock


@pytest.fixture
def metrics():
    return Metrics(node="n1", leases=lambda: 0, queue_length=lambda: 0)


@pytest.fixture
def brake(metrics):
    return FutilityBrake(most=2, pause=60.0, metrics=metrics)


@pytest.fixture
def look(make_worker, tmp_path):
    """Read an app "shop" with this usage in percent, and with these packages loaded."""
    monitor = MemoryMonitor()

    def read(percent=85, packages=("pandas",)):
        app = AppReading("shop", 0, tmp_path, (make_worker(packages=packages),), MemoryReading(100, 100 - percent))
        reading = NodeReading(1e9, MemoryReading(100, 50), {"shop": app})
        return reading, monitor.observe(reading)

    return read


def cycle(outcome, scope="app", app="shop", by="stop"):
    numbers = {"pressure_since": 0.0, "started": 0.0, "usage_before": 0.9, "used_before": 9}
    made = Cycle(id="1", scope=scope, app=app, trigger="webhook", alert_key="", strategy="high", **numbers)
    made.outcome = outcome
    action = Action(by, AppReading("shop", 0, Path("/none"), (), None), (), (), 0, "to try it")
    made.actions = [record_of(action, Outcome(0, 1, (), (), 0.1), started=0.0)]
    return made


def value(metric):
    return metric._value.get()


def test_a_scope_is_paused_and_logged_once_until_something_changes(brake, look, metrics, clock, caplog):
    host = Pressure("host", "", "webhook")
    for _ in range(2):
        assert brake.paused([SHOP], *look()) == set()
        brake.note(cycle("futile"), *look())
    for _ in range(3):
        assert brake.paused([SHOP, host], *look()) == {SHOP.key}
    assert caplog.text.count("scope paused: scope=app app='shop' reason=2 cycles in a row freed too little") == 1
    assert value(metrics.brakes.labels("futile_cycles")) == 1
    assert value(metrics.stopped_scopes) == 1
    assert brake.paused([SHOP], *look(packages=("numpy",))) == set()
    assert brake.paused([SHOP], *look(percent=95)) == set()
    assert value(metrics.stopped_scopes) == 0


def test_after_the_pause_one_more_cycle_is_tried(brake, look, metrics, clock):
    for _ in range(2):
        brake.note(cycle("futile"), *look())
    assert brake.paused([SHOP], *look()) == {SHOP.key}
    clock.now += 60
    assert brake.paused([SHOP], *look()) == set()
    brake.note(cycle("futile"), *look())
    assert brake.paused([SHOP], *look()) == {SHOP.key}
    assert value(metrics.brakes.labels("futile_cycles")) == 2


def test_callbacks_in_vain_neither_begin_a_pause_nor_prolong_it(brake, look, clock):
    for _ in range(3):
        brake.note(cycle("futile", by="callbacks"), *look())
    assert brake.paused([SHOP], *look()) == set()
    for _ in range(2):
        brake.note(cycle("futile"), *look())
    clock.now += 59
    brake.note(cycle("futile", by="callbacks"), *look())
    assert brake.paused([SHOP], *look()) == {SHOP.key}
    clock.now += 1
    assert brake.paused([SHOP], *look()) == set()


def test_callbacks_that_brought_something_end_a_pause(brake, look, clock):
    for _ in range(2):
        brake.note(cycle("futile"), *look())
    brake.note(cycle("effective", by="callbacks"), *look())
    assert brake.paused([SHOP], *look()) == set()


def test_an_effective_cycle_starts_the_count_anew(brake, look, clock):
    brake.note(cycle("futile"), *look())
    brake.note(cycle("effective"), *look())
    brake.note(cycle("futile"), *look())
    assert brake.paused([SHOP], *look()) == set()


def test_the_loads_of_the_host_are_those_of_every_app(brake, look, clock):
    host = Pressure("host", "", "webhook")
    for _ in range(2):
        brake.note(cycle("futile", "host", ""), *look())
    assert brake.paused([host], *look()) == {host.key}
    assert brake.paused([host], *look(packages=())) == set()
