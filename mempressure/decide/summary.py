"""The summary of one observation of a node: every scope with its trend and alert, and the suggestions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from mempressure.config.thresholds import AlertLevel, PressureLevel, Thresholds, pressure_level
from mempressure.decide.alerts import Alert, AlertDict
from mempressure.decide.suggestions import (
    PackageMemory,
    Suggestion,
    SuggestionDict,
    by_priority,
    package_suggestions,
    scope_suggestions,
)
from mempressure.measure import trend
from mempressure.measure.memory_reading import MemoryReading
from mempressure.measure.trend import Series

SCOPE_GAP_SECONDS = 5.0
"""Samples of a scope's series are this far apart at least."""

Process = tuple[object, ...]
"""Package processes: app, package, the workers that share them or the one that has them, and number of the load.

What is started again is another one: its series begins anew."""


class SystemMemory(TypedDict):
    """The host: bytes, percentages 0-100, the pressure level and the Unix time."""

    total: int
    available: int
    used: int
    percent: float
    swap_total: int
    swap_used: int
    swap_percent: float
    swap_available: int
    memory_pressure_level: PressureLevel
    timestamp: float


class ScopeDict(TypedDict):
    """The host, or an app; what needs a limit is null for an app with neither limit nor budget."""

    scope: str
    app: str
    total: int | None
    available: int | None
    used: int
    percent: float | None
    memory_pressure_level: PressureLevel | None
    alert_level: AlertLevel | None
    memory_trend: trend.Direction
    trend_bytes_per_second: float | None


class PressureSummary(TypedDict):
    """Everything; `system_memory` and `memory_trend` are the host's, `scopes` holds the host and each app."""

    system_memory: SystemMemory
    current_alerts: list[AlertDict]
    optimization_suggestions: list[SuggestionDict]
    alert_history: list[AlertDict]
    memory_trend: trend.Direction
    last_check: float
    alerts_enabled: bool
    suggestions_enabled: bool
    scopes: list[ScopeDict]


@dataclass(frozen=True, slots=True)
class ScopeReport:
    """One scope at the time of an observation."""

    scope: str
    app: str
    memory: MemoryReading | None
    """None for an app with neither limit nor budget."""
    used_bytes: int
    total_bytes: int
    """What a trend is measured against: the scope's total, or the host's where it has none."""
    held: tuple[str, ...]
    """The thresholds that hold, lowest first."""
    alert: Alert | None
    series: Series
    floor: str = ""
    """Why unloading cannot relieve it (see `mempressure.decide.floor`); empty where it can."""

    @property
    def direction(self) -> trend.Direction:
        """Return increasing, stable or decreasing."""
        return trend.direction(self.series.slope, total_bytes=self.total_bytes)

    def as_dict(self) -> ScopeDict:
        """Return an entry of the summary's `scopes`; what needs a limit is None where there is none."""
        memory = self.memory
        return {
            "scope": self.scope,
            "app": self.app,
            "total": memory.total if memory else None,
            "available": memory.available if memory else None,
            "used": self.used_bytes,
            "percent": _percent(memory.used, memory.total) if memory else None,
            "memory_pressure_level": pressure_level(memory.usage) if memory else None,
            "alert_level": self.alert.level if self.alert else None,
            "memory_trend": self.direction,
            "trend_bytes_per_second": self.series.slope,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a monitor knows at one time, in Unix seconds."""

    sampled: float
    host: MemoryReading
    scopes: tuple[ScopeReport, ...]
    """The host, then apps."""
    packages: Mapping[str, tuple[PackageMemory, ...]]
    """The packages of each app that are loaded, or left something behind in its workers."""
    new_alerts: tuple[Alert, ...]
    """Those that entered the history with this observation."""
    history: tuple[Alert, ...]
    """Newest first."""
    thresholds: Thresholds
    alerts_enabled: bool
    suggestions_enabled: bool

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Return the alerts that hold, one a scope at most; none while alerts are turned off."""
        return tuple(report.alert for report in self.scopes if report.alert)

    def suggestions(self) -> list[Suggestion]:
        """Return the suggestions, most urgent first; none while suggestions are turned off."""
        if not self.suggestions_enabled:
            return []
        found: list[Suggestion] = []
        totals: dict[str, int] = {}
        for report in self.scopes:
            if report.memory is None:
                continue
            if report.scope == "app":
                totals[report.app] = report.memory.total
            found += scope_suggestions(
                report.memory,
                scope=report.scope,
                app=report.app,
                held=report.held,
                thresholds=self.thresholds,
                slope=report.series.slope,
                floor=report.floor,
            )
        for app, packages in self.packages.items():
            scope, total = ("app", totals[app]) if app in totals else ("host", self.host.total)
            found += package_suggestions(packages, scope=scope, total_bytes=total)
        return by_priority(found)

    def system_memory(self) -> SystemMemory:
        """Return the host's memory: bytes, percentages 0-100, its pressure level and the time."""
        host = self.host
        return {
            "total": host.total,
            "available": host.available,
            "used": host.used,
            "percent": _percent(host.used, host.total),
            "swap_total": host.swap_total,
            "swap_used": host.swap_used,
            "swap_percent": _percent(host.swap_used, host.swap_total),
            "swap_available": host.swap_free,
            "memory_pressure_level": pressure_level(host.usage),
            "timestamp": self.sampled,
        }

    def summary(self) -> PressureSummary:
        """Return everything as plain data for JSON; `system_memory` and `memory_trend` are the host's."""
        return {
            "system_memory": self.system_memory(),
            "current_alerts": [alert.as_dict() for alert in self.alerts],
            "optimization_suggestions": [suggestion.as_dict() for suggestion in self.suggestions()],
            "alert_history": [alert.as_dict() for alert in self.history],
            "memory_trend": self.scopes[0].direction,
            "last_check": self.sampled,
            "alerts_enabled": self.alerts_enabled,
            "suggestions_enabled": self.suggestions_enabled,
            "scopes": [report.as_dict() for report in self.scopes],
        }


def _percent(part: int, total: int) -> float:
    return 100 * part / total if total else 0.0
