import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds
from mempressure.decide.alerts import (
    CALL_INTERVAL_SECONDS,
    HISTORY_LENGTH,
    LEVELS,
    Alert,
    AlertHistory,
    alert_counts,
    callbacks_concerned,
    callbacks_due,
    current_alert,
)

DEFAULTS = Thresholds()
NOW = 10_000.0
LEVEL_OF = {"warning": "warning", "unload_packages": "medium", "aggressive_unload": "high", "emergency": "emergency"}


def alert_at(usage, *, held=(), thresholds=DEFAULTS, scope="host", app=""):
    return current_alert(usage, scope=scope, app=app, held=held, thresholds=thresholds, now=1000.0)


def level_at(usage, **options):
    alert = alert_at(usage, **options)
    return alert and alert.level


def an_alert(level="medium", *, at=0.0, scope="host", app=""):
    return Alert(level=level, usage=0.8, timestamp=at, scope=scope, app=app)


@pytest.mark.parametrize(
    ("usage", "level"),
    [
        (0.0, None),
        (math.nextafter(0.60, 0), None),
        (0.60, "warning"),
        (math.nextafter(0.80, 0), "warning"),
        (0.80, "medium"),
        (math.nextafter(0.85, 0), "medium"),
        (0.85, "high"),
        (math.nextafter(0.90, 0), "high"),
        (0.90, "emergency"),
        (1.0, "emergency"),
        (1.3, "emergency"),
        (math.nan, None),
    ],
)
def test_a_level_begins_exactly_at_its_threshold(usage, level):
    assert level_at(usage) == level


@pytest.mark.parametrize(
    ("name", "exit_ratio", "below"),
    [
        ("warning", 0.55, None),
        ("unload_packages", 0.75, "warning"),
        ("aggressive_unload", 0.80, "medium"),
        ("emergency", 0.85, "high"),
    ],
)
def test_a_level_ends_just_below_its_exit(name, exit_ratio, below):
    held = THRESHOLD_NAMES[: THRESHOLD_NAMES.index(name) + 1]
    assert level_at(exit_ratio, held=held) == LEVEL_OF[name]
    assert level_at(math.nextafter(exit_ratio, 0), held=held) == below


def test_as_dict_is_the_documented_sample_where_75_percent_is_medium():
    thresholds = Thresholds(unload_packages=0.75)
    alert = current_alert(0.75, scope="host", app="", held=(), thresholds=thresholds, now=1703123456.789)
    assert alert.as_dict() == {
        "level": "medium",
        "message": "Moderate memory pressure: 75.0% memory usage",
        "usage_percent": 0.75,
        "timestamp": 1703123456.789,
        "recommendation": "Consider unloading unused packages",
        "action_required": False,
        "scope": "host",
        "app": "",
    }


@pytest.mark.parametrize(
    ("usage", "message", "action_required"),
    [
        (0.60, "Elevated memory pressure: 60.0% memory usage", False),
        (0.8049, "Moderate memory pressure: 80.5% memory usage", False),
        (0.85, "High memory pressure: 85.0% memory usage", True),
        (1.25, "Critical memory pressure: 125.0% memory usage", True),
    ],
)
def test_message_and_action_required_follow_the_level(usage, message, action_required):
    alert = alert_at(usage)
    assert (alert.message, alert.action_required) == (message, action_required)


def test_an_apps_alert_names_it():
    alert = alert_at(0.8, scope="app", app="shop").as_dict()
    assert alert["message"] == "Moderate memory pressure of shop: 80.0% memory usage"
    assert (alert["scope"], alert["app"]) == ("app", "shop")


ratios = st.floats(0.06, 1.0).map(lambda value: round(value, 4))
some_thresholds = st.lists(ratios, min_size=4, max_size=4, unique=True).map(lambda v: Thresholds(*sorted(v)))


@given(
    usages=st.lists(st.floats(0, 2) | st.just(math.nan), max_size=30),
    thresholds=some_thresholds,
    near=st.lists(st.sampled_from(THRESHOLD_NAMES), max_size=30),
)
def test_over_any_course_a_level_lasts_from_enter_until_below_exit(usages, thresholds, near):
    course = usages + [value for name in near for value in (thresholds.enter(name), thresholds.exit(name))]
    state = dict.fromkeys(THRESHOLD_NAMES, False)
    for usage in course:
        held = [name for name in THRESHOLD_NAMES if state[name]]
        for name in THRESHOLD_NAMES:
            if usage >= thresholds.enter(name):
                state[name] = True
            elif not usage >= thresholds.exit(name):
                state[name] = False
        highest = [LEVEL_OF[name] for name in THRESHOLD_NAMES if state[name]][-1:]
        alert = alert_at(usage, held=held, thresholds=thresholds)
        assert ([alert.level] if alert else []) == highest
        if alert:
            json.dumps(alert.as_dict(), allow_nan=False)


def test_counts_take_an_emergency_for_critical():
    alerts = [an_alert(level) for level in ("emergency", "high", "high", "medium", "warning", "emergency")]
    assert alert_counts(alerts) == {
        "total_alerts": 6,
        "critical_alerts": 2,
        "high_alerts": 2,
        "medium_alerts": 1,
        "warning_alerts": 1,
    }
    assert set(alert_counts([]).values()) == {0}


@pytest.mark.parametrize(
    ("seconds", "enters"), [(0.0, False), (299.999, False), (300.0, True), (-9.9, False), (-10, True)]
)
def test_the_same_alert_enters_once_a_cooldown_and_again_when_the_clock_is_set_back(seconds, enters):
    history = AlertHistory()
    assert history.add(an_alert(at=1000.0))
    assert history.add(an_alert(at=1000.0 + seconds)) is enters
    assert len(history.alerts()) == 1 + enters


@pytest.mark.parametrize(
    ("course", "enter"),
    [
        (["warning", "medium", "high", "emergency"], [True] * 4),
        (["high", "medium", "medium", "medium"], [True, True, False, False]),
        (["high", "medium", "high", "medium", "high"], [True, True, True, False, False]),
        (["emergency", "high", "emergency"], [True, True, True]),
        (["medium", "warning", "medium", "warning"], [True, True, True, False]),
    ],
)
def test_an_escalation_enters_at_once(course, enter):
    history = AlertHistory()
    assert [history.add(an_alert(level, at=second)) for second, level in enumerate(course)] == enter


def test_scopes_and_apps_have_cooldowns_of_their_own():
    history = AlertHistory()
    assert history.add(an_alert(at=0))
    assert history.add(an_alert(at=1, scope="app", app="shop"))
    assert history.add(an_alert(at=2, scope="app", app="blog"))
    assert not history.add(an_alert(at=3, scope="app", app="shop"))
    assert [alert.app for alert in history.alerts()] == ["blog", "shop", ""]


def test_without_a_cooldown_every_alert_enters_and_the_newest_hundred_stay():
    history = AlertHistory(cooldown_seconds=0)
    assert all(history.add(an_alert(at=second)) for second in range(150))
    assert [alert.timestamp for alert in history.alerts()] == list(range(149, 49, -1))


def test_apps_that_come_and_go_leave_nothing_behind():
    history = AlertHistory(cooldown_seconds=10)
    for second in range(1000):
        history.add(an_alert(at=second, scope="app", app=f"app-{second}"))
    assert len(history._announced) <= 10
    assert len(history._last_level) <= 10


class HistoryMachine(RuleBasedStateMachine):
    """Against a model that forgets nothing: every alert that entered, oldest first."""

    cooldown = 30.0

    def __init__(self):
        super().__init__()
        self.history = AlertHistory(cooldown_seconds=self.cooldown)
        self.now = 1e9
        self.entered = []

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 9.0, 10.0, 29.5, 30.0, 31.0, 500.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule(level=st.sampled_from(LEVELS), app=st.sampled_from(["", "shop"]))
    def add(self, level, app):
        of_scope = [(at, other) for at, other, where in self.entered if where == app]
        same_level = [at for at, other in of_scope if other == level]
        cooling = bool(same_level) and self.now - same_level[-1] < self.cooldown
        escalated = bool(of_scope) and LEVELS.index(level) > LEVELS.index(of_scope[-1][1])
        expected = escalated or not cooling
        scope = "app" if app else "host"
        assert self.history.add(an_alert(level, at=self.now, scope=scope, app=app)) is expected
        if expected:
            self.entered.append((self.now, level, app))
        newest = next(alert for alert in self.history.alerts() if alert.app == app)
        assert LEVELS.index(newest.level) >= LEVELS.index(level), "the newest word plays the pressure down"

    @invariant()
    def newest_first_and_bounded(self):
        held = [(alert.timestamp, alert.level, alert.app) for alert in self.history.alerts()]
        assert held == self.entered[::-1][:HISTORY_LENGTH]


TestHistoryMachine = HistoryMachine.TestCase


@pytest.mark.parametrize(
    ("ages", "level", "expected"),
    [
        ({}, "medium", True),
        ({"medium": 1}, "medium", False),
        ({"medium": 1}, "high", True),
        ({"medium": 1}, "emergency", True),
        ({"high": 1}, "medium", False),  # that was a call at medium too
        ({"high": 1}, "high", False),
        ({"medium": 59.9}, "medium", False),
        ({"medium": 60}, "medium", True),
        ({"medium": 100, "high": 1}, "medium", False),
        ({"medium": 1, "high": 59}, "high", False),  # fell to medium, and rises again
        ({"medium": 1, "high": 60}, "high", True),
        ({"medium": -3600}, "medium", True),  # the clock was set back
    ],
)
def test_callbacks_are_due_at_each_escalation_and_once_an_interval(ages, level, expected):
    assert callbacks_due({each: NOW - age for each, age in ages.items()}, level, now=NOW) is expected


@given(st.lists(st.tuples(st.floats(0, 200), st.sampled_from(LEVELS)), max_size=40))
def test_no_level_is_called_twice_within_the_interval_and_none_waits_for_longer(looks):
    called, now = {}, NOW
    for seconds, level in looks:
        now += seconds
        higher = LEVELS[LEVELS.index(level) :]
        last = max((called[each] for each in higher if each in called), default=None)
        assert callbacks_due(called, level, now=now) == (last is None or now - last >= CALL_INTERVAL_SECONDS)
        if callbacks_due(called, level, now=now):
            called[level] = now


@pytest.mark.parametrize(
    ("declared", "levels"),
    [("", ()), ("warning", LEVELS), ("high", LEVELS[2:]), ("emergency", LEVELS[3:]), ("whatever another writes", ())],
)
def test_a_worker_is_concerned_from_its_lowest_level_on(declared, levels):
    assert tuple(level for level in LEVELS if callbacks_concerned(declared, level)) == levels
