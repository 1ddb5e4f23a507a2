"""Suggestions on how to use less memory: pure functions of what was measured.

Two kinds: on a scope (the host, or an app with a limit or budget), and on single packages. `value` is what triggered
a suggestion: a ratio, bytes, or bytes per second; the table in docs/alerts-and-suggestions.md says which.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NotRequired, TypedDict, get_args

from mempressure.config.thresholds import Thresholds
from mempressure.measure import trend
from mempressure.measure.memory_reading import MemoryReading
from mempressure.measure.trend import Sample

Severity = Literal["critical", "high", "medium", "low"]

SuggestionType = Literal[
    "emergency_memory_reduction",
    "aggressive_package_unloading",
    "low_available_memory",
    "swap_usage_high",
    "memory_leak",
    "memory_trend_increasing",
    "moderate_package_unloading",
    "swap_usage_moderate",
    "high_memory_footprint",
    "package_imported_by_results",
    "increasing_memory_trend",
]
"""Every type there is, in the order in which suggestions of one priority are listed."""

PRIORITIES: dict[Severity, int] = {"critical": 1, "high": 2, "medium": 3, "low": 4}
"""The priority of each severity; 1 comes first."""

SWAP_MODERATE_RATIO, SWAP_HIGH_RATIO = 0.50, 0.80
LOW_AVAILABLE_RATIO, LOW_AVAILABLE_BYTES = 0.10, 1 << 30
FOOTPRINT_RATIO, FOOTPRINT_BYTES = 0.10, 256 << 20
RESULT_BYTES = 16 << 20
NEAR_EMERGENCY_SECONDS = 15 * 60

GROWTH_SAMPLES = 10
"""Samples of a process below which nothing is said about its growth."""
LEAK_RATIO, LEAK_BYTES = 0.20, 16 << 20
INCREASE_RATIO, INCREASE_BYTES = 0.05, 4 << 20


@dataclass(frozen=True, slots=True)
class _Kind:
    severity: Severity
    message: str
    recommendation: str


_KINDS: dict[SuggestionType, _Kind] = {
    "emergency_memory_reduction": _Kind(
        "critical",
        "Critical memory usage detected",
        "Free memory at once: unload every idle package, stop or restart what is not needed",
    ),
    "aggressive_package_unloading": _Kind(
        "high",
        "High memory usage detected",
        "Unload packages aggressively: halve their timeouts, keep none by preference",
    ),
    "low_available_memory": _Kind(
        "high", "Little memory is available", "Unload idle packages or add memory before something is killed"
    ),
    "swap_usage_high": _Kind(
        "high", "High swap usage detected", "Reduce memory usage: what is in swap slows down all that needs it"
    ),
    "memory_leak": _Kind(
        "high",
        "{package} keeps growing and may leak memory",
        "Look for a leak in {package}; unload it until it is found",
    ),
    "memory_trend_increasing": _Kind(
        "medium", "Memory usage is trending upward", "Find what is growing before a threshold is reached"
    ),
    "moderate_package_unloading": _Kind(
        "medium", "Moderate memory usage detected", "Consider unloading unused packages"
    ),
    "swap_usage_moderate": _Kind("medium", "Moderate swap usage detected", "Monitor swap usage"),
    "high_memory_footprint": _Kind(
        "medium", "{package} holds much memory", "Unload {package} when it is idle, or give it a shorter timeout"
    ),
    "package_imported_by_results": _Kind(
        "medium",
        "Results of functions isolated for {package} import it into the workers, which keep it",
        'Return plain data from these functions, or declare them with results="plain"',
    ),
    "increasing_memory_trend": _Kind("low", "Memory of {package} is increasing", "Monitor the memory of {package}"),
}

_ON_USAGE: dict[SuggestionType, str] = {
    "emergency_memory_reduction": "emergency",
    "aggressive_package_unloading": "aggressive_unload",
    "moderate_package_unloading": "warning",
}
"""The threshold that each holds from, the highest first."""

SUGGESTION_TYPES: tuple[SuggestionType, ...] = get_args(SuggestionType)

_PLACES = {name: place for place, name in enumerate(SUGGESTION_TYPES)}

_Found = tuple[SuggestionType, float, Severity | Literal[""]]
"""A type, its value, and a severity that is not its usual one."""


class SuggestionDict(TypedDict):
    """A suggestion as the JSON API shows it; `value` is a ratio, bytes, or bytes per second, by its type."""

    type: SuggestionType
    severity: Severity
    message: str
    recommendation: str
    value: float
    priority: int
    scope: str
    app: str
    package: NotRequired[str]
    """There where the suggestion is about one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One suggestion; `package` is empty where it is about a whole scope."""

    type: SuggestionType
    severity: Severity
    value: float
    scope: str
    app: str
    package: str = ""
    message: str
    recommendation: str

    @property
    def priority(self) -> int:
        """Return the rank of its severity: 1 critical, 2 high, 3 medium, 4 low."""
        return PRIORITIES[self.severity]

    def as_dict(self) -> SuggestionDict:
        """Return the suggestion as the JSON API shows it."""
        content: SuggestionDict = {
            "type": self.type,
            "severity": self.severity,
            "message": self.message,
            "recommendation": self.recommendation,
            "value": self.value,
            "priority": self.priority,
            "scope": self.scope,
            "app": self.app,
        }
        if self.package:
            content["package"] = self.package
        return content


@dataclass(frozen=True, slots=True)
class PackageMemory:
    """What one package of an app holds over the app's workers: while it is loaded, and what its results left behind."""

    name: str
    app: str
    memory_bytes: float
    processes: Sequence[Sequence[Sample]] = ()
    """The memory of its own processes over time, a series for each set that workers share; empty where it has none."""
    result_bytes: float = 0.0
    """What results of its functions have imported into the workers."""


def scope_suggestions(
    memory: MemoryReading,
    *,
    scope: str,
    app: str,
    held: Iterable[str],
    thresholds: Thresholds,
    slope: float | None,
    floor: str = "",
) -> list[Suggestion]:
    """Return the suggestions on one scope, most urgent first.

    Args:
        memory: of the scope, measured now.
        scope: "host" or "app".
        app: the app's name; empty for the host.
        held: the thresholds that hold now, as `thresholds.entered` says.
        thresholds: their ratios.
        slope: bytes per second, as `trend.slope` gives it; None where not known.
        floor: why unloading cannot relieve it, as `mempressure.decide.floor` gives it; recommended in its place.
    """
    found = [
        *_on_usage(memory, frozenset(held)),
        *_on_swap(memory),
        *_on_trend(memory, thresholds, slope),
        *_on_available(memory),
    ]
    suggestions = [_suggestion(name, value, severity, scope, app) for name, value, severity in found]
    if floor:
        instead = floor[0].upper() + floor[1:]
        suggestions = [
            replace(each, recommendation=instead) if each.type in _ON_USAGE else each for each in suggestions
        ]
    return by_priority(suggestions)


def package_suggestions(packages: Iterable[PackageMemory], *, scope: str, total_bytes: int) -> list[Suggestion]:
    """Return the suggestions on single packages, most urgent first.

    Args:
        packages: those of a scope.
        scope: "app" where the app has a limit or budget, else "host".
        total_bytes: of that scope.
    """
    found = []
    for package in packages:
        size = package.memory_bytes
        if size >= FOOTPRINT_BYTES or 0 < FOOTPRINT_RATIO * total_bytes <= size:
            found.append(_suggestion("high_memory_footprint", size, "", scope, package.app, package.name))
        if package.result_bytes >= RESULT_BYTES:
            kind: SuggestionType = "package_imported_by_results"
            found.append(_suggestion(kind, package.result_bytes, "", scope, package.app, package.name))
        name, grown = _worst_growth(package.processes)
        if grown:
            found.append(_suggestion(name, grown, "", scope, package.app, package.name))
    return by_priority(found)


def by_priority(suggestions: Iterable[Suggestion]) -> list[Suggestion]:
    """Return suggestions most urgent first; of one priority and type the largest value first."""
    return sorted(
        suggestions, key=lambda s: (s.priority, _PLACES[s.type], -s.value, s.scope != "host", s.app, s.package)
    )


def steady_growth(samples: Sequence[Sample]) -> tuple[float, float]:
    """Return by how many bytes a process grew over `samples`, and from how many; (0, 0) where it did not grow steadily.

    Both come from the line with the Theil-Sen slope through the median, so outliers move neither. Steadily: either half
    of the samples rises by itself, at a quarter of the whole's slope at least, which a single jump does not, nor a
    cache that fills once.
    """
    if len(samples) < GROWTH_SAMPLES:
        return 0.0, 0.0
    values = sorted(value for _, value in samples)
    if values[-1] - values[0] < INCREASE_BYTES:  # spares most processes the slope, which is dear
        return 0.0, 0.0
    half = len(samples) // 2
    slope, early, late = (trend.slope(part) or 0.0 for part in (samples, samples[:half], samples[-half:]))
    if not (slope > 0 and min(early, late) >= slope / 4):  # so put, what is no number is no growth
        return 0.0, 0.0
    grown = round(slope * (samples[-1][0] - samples[0][0]))
    median = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    return grown, max(0.0, median - grown / 2)


def _on_usage(memory: MemoryReading, held: frozenset[str]) -> Iterator[_Found]:
    for name, threshold in _ON_USAGE.items():
        if threshold in held:
            yield name, memory.usage, ""
            return


def _on_swap(memory: MemoryReading) -> Iterator[_Found]:
    if memory.swap_usage >= SWAP_HIGH_RATIO:
        yield "swap_usage_high", memory.swap_usage, ""
    elif memory.swap_usage >= SWAP_MODERATE_RATIO:
        yield "swap_usage_moderate", memory.swap_usage, ""


def _on_trend(memory: MemoryReading, thresholds: Thresholds, slope: float | None) -> Iterator[_Found]:
    if slope is None or trend.direction(slope, total_bytes=memory.total) != "increasing":
        return
    missing = thresholds.emergency * memory.total - memory.used
    yield "memory_trend_increasing", slope, "high" if missing < slope * NEAR_EMERGENCY_SECONDS else "medium"


def _on_available(memory: MemoryReading) -> Iterator[_Found]:
    if memory.available < min(LOW_AVAILABLE_BYTES, LOW_AVAILABLE_RATIO * memory.total):
        yield "low_available_memory", max(0, memory.available), ""


def _worst_growth(processes: Iterable[Sequence[Sample]]) -> tuple[SuggestionType, float]:
    leaks, increases = [0.0], [0.0]
    for samples in processes:
        grown, start = steady_growth(samples)
        if grown >= LEAK_BYTES and grown >= LEAK_RATIO * start:
            leaks.append(grown)
        elif grown >= INCREASE_BYTES and grown >= INCREASE_RATIO * start:
            increases.append(grown)
    return ("memory_leak", max(leaks)) if len(leaks) > 1 else ("increasing_memory_trend", max(increases))


def _suggestion(
    name: SuggestionType, value: float, severity: Severity | Literal[""], scope: str, app: str, package: str = ""
) -> Suggestion:
    kind = _KINDS[name]
    return Suggestion(
        type=name,
        severity=severity or kind.severity,
        value=value,
        scope=scope,
        app=app,
        package=package,
        message=kind.message.format(package=package),
        recommendation=kind.recommendation.format(package=package),
    )
