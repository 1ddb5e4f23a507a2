"""Alerts on memory pressure: the current one of a scope, and the history of those that were announced.

A *current* alert is a state: it holds for as long as its threshold does. The *history* holds what was announced: an
alert enters it once a cooldown, so that a state that lasts, or flaps, does not spam. Time comes with each alert.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict

from mempressure.config.thresholds import ALERT_LEVELS, AlertLevel, Thresholds, entered

LEVELS = tuple(ALERT_LEVELS.values())
"""The levels of alerts, mildest first."""

DEFAULT_COOLDOWN_SECONDS = 300.0

CALL_INTERVAL_SECONDS = 60.0
"""How soon callbacks are called again at a level at which they were called before in the same episode of pressure."""

LastCalls = Mapping[str, float]
"""When a worker's `on_pressure` callbacks were last called at each level of an episode, in Unix seconds."""

HISTORY_LENGTH = 100
"""How many alerts the history holds."""

_CLOCK_SET_BACK_SECONDS = 10.0
"""By how much an alert may be older than the one before it, as two threads hand them in, at the same clock."""

_WORDS: dict[AlertLevel, tuple[str, str]] = {
    "warning": ("Elevated", "Monitor memory usage and check which loaded packages are unused"),
    "medium": ("Moderate", "Consider unloading unused packages"),
    "high": ("High", "Unload idle packages now and find what is growing"),
    "emergency": ("Critical", "Free memory at once: unload every idle package, stop or restart what is not needed"),
}


class AlertDict(TypedDict):
    """An alert as the JSON API shows it; `usage_percent` is a ratio 0-1, in spite of its name; the time is Unix'."""

    level: AlertLevel
    message: str
    usage_percent: float
    timestamp: float
    recommendation: str
    action_required: bool
    scope: str
    app: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert on one scope: "host" with app "", or "app" with its name."""

    level: AlertLevel
    usage: float
    """A ratio."""
    timestamp: float
    """Unix seconds of the measurement."""
    scope: str
    app: str

    @property
    def message(self) -> str:
        """Return the alert in a sentence, such as "Moderate memory pressure: 75.0% memory usage"."""
        where = f" of {self.app}" if self.app else ""
        return f"{_WORDS[self.level][0]} memory pressure{where}: {100 * self.usage:.1f}% memory usage"

    @property
    def recommendation(self) -> str:
        """Return what to do about it."""
        return _WORDS[self.level][1]

    @property
    def action_required(self) -> bool:
        """Return whether it calls for action: from level high up."""
        return self.level in {"high", "emergency"}

    def as_dict(self) -> AlertDict:
        """Return the alert as the JSON API shows it."""
        return {
            "level": self.level,
            "message": self.message,
            "usage_percent": self.usage,
            "timestamp": self.timestamp,
            "recommendation": self.recommendation,
            "action_required": self.action_required,
            "scope": self.scope,
            "app": self.app,
        }


def current_alert(
    usage: float, *, scope: str, app: str, held: Iterable[str], thresholds: Thresholds, now: float
) -> Alert | None:
    """Return the alert of the highest threshold that holds now; None below all of them.

    Args:
        usage: a ratio; one that is no number enters nothing.
        scope: "host" or "app".
        app: the app's name; empty for the host.
        held: the thresholds that held before, which are left below their exit only.
        thresholds: the ratios to enter and to leave.
        now: Unix seconds of the measurement.
    """
    holding = entered(usage, thresholds, before=held)
    if not holding:
        return None
    return Alert(level=ALERT_LEVELS[holding[-1]], usage=usage, timestamp=now, scope=scope, app=app)


class AlertCounts(TypedDict):
    """Alerts by level; an emergency counts as critical."""

    total_alerts: int
    critical_alerts: int
    high_alerts: int
    medium_alerts: int
    warning_alerts: int


def alert_counts(alerts: Iterable[Alert]) -> AlertCounts:
    """Count alerts by level."""
    levels = [alert.level for alert in alerts]
    return {
        "total_alerts": len(levels),
        "critical_alerts": levels.count("emergency"),
        "high_alerts": levels.count("high"),
        "medium_alerts": levels.count("medium"),
        "warning_alerts": levels.count("warning"),
    }


class AlertHistory:
    """The alerts that were announced, newest first, at most `HISTORY_LENGTH`.

    An alert of a scope and level enters once a cooldown. An escalation enters at once: an alert above the one that
    entered last for its scope, so that the newest entry of a scope never understates its pressure.

    Args:
        cooldown_seconds: 0 lets every alert enter.
    """

    def __init__(self, *, cooldown_seconds: float = DEFAULT_COOLDOWN_SECONDS) -> None:
        self._cooldown = cooldown_seconds
        self._alerts: deque[Alert] = deque(maxlen=HISTORY_LENGTH)
        self._announced: dict[tuple[str, str, str], float] = {}
        self._last_level: dict[tuple[str, str], str] = {}

    def add(self, alert: Alert) -> bool:
        """Enter an alert, at its own timestamp, unless it is in its cooldown; return whether it entered."""
        scope = (alert.scope, alert.app)
        last_level = self._last_level.get(scope)
        escalated = last_level is not None and LEVELS.index(alert.level) > LEVELS.index(last_level)
        announced = self._announced.get((*scope, alert.level))
        if announced is not None and self._cooling(announced, alert.timestamp) and not escalated:
            return False
        self._forget_expired(alert.timestamp)
        self._announced[(*scope, alert.level)] = alert.timestamp
        self._last_level[scope] = alert.level
        self._alerts.appendleft(alert)
        return True

    def alerts(self) -> tuple[Alert, ...]:
        """Return the alerts that entered, newest first."""
        return tuple(self._alerts)

    def _cooling(self, announced: float, now: float) -> bool:
        # A clock that was set back must not silence alerts until it has caught up.
        return -_CLOCK_SET_BACK_SECONDS < now - announced < self._cooldown

    def _forget_expired(self, now: float) -> None:
        """Drop what no longer holds anything back, so that apps that come and go leave nothing behind."""
        self._announced = {
            key: announced for key, announced in self._announced.items() if self._cooling(announced, now)
        }
        scopes = {key[:2] for key in self._announced}
        self._last_level = {scope: level for scope, level in self._last_level.items() if scope in scopes}


def callbacks_concerned(declared_from: str, level: str) -> bool:
    """Return whether callbacks, the lowest of which is declared for one level, are to be called at another."""
    return declared_from in LEVELS[: LEVELS.index(level) + 1]


def callbacks_due(last_calls: LastCalls, level: str, *, now: float) -> bool:
    """Return whether callbacks are to be called at this level; `now` in Unix seconds.

    They are at each escalation, and once an interval while it lasts. A call at a higher level was one at this too.
    """
    times = (last_calls[each] for each in LEVELS[LEVELS.index(level) :] if each in last_calls)
    # A time to come dates from before the clock was set back: better once too often than never again.
    return not any(0 <= now - when < CALL_INTERVAL_SECONDS for when in times)
