from pathlib import Path

import pytest

from mempressure.act.executor import Outcome
from mempressure.control.learned import Learned, quarantine_keys
from mempressure.decide.plan import Action, Target
from mempressure.measure.memory_reading import MemoryReading
from mempressure.state.node import AppReading, NodeReading
from mempressure.state.records import PackageState, WorkerState

NOW = 1000.0
MIB = 1 << 20
HOST, SHOP = ("host", ""), ("app", "shop")
PACKAGE = PackageState(
    name="pandas", mechanism="stop", source="process", timeout=60.0, loaded=1.0, loads=1.0, memory_bytes=100.0 * MIB
)
WORKER = WorkerState(app="shop", pid=1, start_ticks=7, pid_namespace="ns", started=0.0, packages=[PACKAGE])
APP = AppReading("shop", 1000, Path("/none"), (WORKER,), None)


@pytest.fixture
def learned():
    return Learned()


def reading(*apps):
    return NodeReading(NOW, MemoryReading(1000, 500), {app.name: app for app in apps})


def action(mechanism="stop", packages=("pandas",), value=0.0, **options):
    return Action(mechanism, APP, packages, (Target(WORKER, {}),), 100 * MIB, "to try it", value=value, **options)


def outcome(reclaimed, *, workers=1):
    return Outcome(reclaimed, workers, (), (), 0.1)


def test_a_trim_is_remembered_for_as_long_as_its_worker_is_there(learned):
    assert learned.note(action("trim", ()), outcome(5), scope=HOST, started=NOW, ended=NOW + 1) == set()
    assert learned.experience(futile=()).trimmed == {(1, 7): NOW}
    learned.forget_gone(reading(APP))
    assert learned.experience(futile=()).trimmed == {(1, 7): NOW}
    learned.forget_gone(reading())
    assert learned.experience(futile=()).trimmed == {}


def test_calls_are_remembered_by_level_until_the_episode_of_their_scope_ends(learned):
    def called():
        return learned.experience(futile=()).called

    def call(scope, level, when):
        found = learned.note(action("callbacks", (), level=level), outcome(0), scope=scope, started=when, ended=when)
        assert found == set()

    call(SHOP, "medium", NOW)
    call(SHOP, "high", NOW + 5)
    call(HOST, "medium", NOW + 9)  # the worker is in both scopes
    assert called() == {(1, 7): {"medium": NOW + 9, "high": NOW + 5}}
    learned.end_episode(SHOP)
    assert called() == {(1, 7): {"medium": NOW + 9}}
    learned.forget_gone(reading(APP))
    assert called() == {(1, 7): {"medium": NOW + 9}}
    learned.forget_gone(reading())
    assert called() == {}


def test_a_worker_that_was_called_may_be_trimmed_again(learned):
    learned.note(action("trim", ()), outcome(5), scope=HOST, started=NOW, ended=NOW + 1)
    learned.note(action("callbacks", ()), outcome(5), scope=HOST, started=NOW + 2, ended=NOW + 2)
    assert learned.experience(futile=()).trimmed == {}


@pytest.mark.parametrize(
    ("reclaimed", "workers", "disappoints"), [(19 * MIB, 1, True), (21 * MIB, 1, False), (0, 0, False)]
)
def test_what_gave_back_under_a_fifth_is_quarantined(learned, reclaimed, workers, disappoints):
    stop = action()
    found = learned.note(stop, outcome(reclaimed, workers=workers), scope=HOST, started=NOW, ended=NOW + 1)
    assert found == (set(quarantine_keys(stop)) if disappoints else set())
    assert set(learned.experience(futile=()).quarantine) == found


@pytest.mark.parametrize("packages", [(), ("pandas",)])
def test_a_worker_whose_replacement_gave_back_too_little_is_quarantined_as_a_whole(learned, packages):
    recycle = action("recycle", packages)
    assert learned.note(recycle, outcome(19 * MIB), scope=HOST, started=NOW, ended=NOW + 1) == {("shop", "", "recycle")}
    assert learned.note(recycle, outcome(90 * MIB), scope=HOST, started=NOW, ended=NOW + 2) == set()
    assert learned.experience(futile=()).quarantine == {}


def test_a_quarantine_ends_after_half_an_hour(learned):
    learned.note(action(), outcome(0), scope=HOST, started=NOW, ended=NOW - 1800.0)
    learned.observe(reading(APP))
    assert learned.experience(futile=()).quarantine == {}


def test_the_ageing_level_rises_to_what_was_unloaded_and_only_then(learned):
    learned.observe(reading(APP))
    learned.note(action(value=2.0), outcome(0, workers=0), scope=HOST, started=NOW, ended=NOW)
    assert learned.experience(futile=()).ageing.level == 0.0
    learned.note(action(value=2.0), outcome(100 * MIB), scope=HOST, started=NOW, ended=NOW)
    assert learned.experience(futile=()).ageing.level == 2.0


def test_futile_actions_are_passed_on(learned):
    assert learned.experience(futile={"x"}).futile == {"x"}
