"""The strategy, how hard to unload: chosen from the usage measured now, not from the alert that was raised."""

from dataclasses import dataclass

from mempressure.config.thresholds import DEFAULT_CRITICAL_RATIO, Thresholds


@dataclass(frozen=True, slots=True)
class Strategy:
    """How hard to unload: see the table in docs/concepts.md."""

    name: str
    most_packages: int
    """How many (app, package) pairs one cycle may unload."""
    pause_seconds: float
    """How long to wait after a cycle before the next."""
    overrides_preferences: bool

    def idle_seconds(self, timeout: float) -> float:
        """Return how long a package with this timeout must have been unused to be a candidate."""
        if self.name == "critical":
            return min(30.0, timeout / 2)
        return timeout / 2 if self.name == "high" else timeout


def choose_strategy(
    usage: float, thresholds: Thresholds, *, critical_ratio: float = DEFAULT_CRITICAL_RATIO, increasing: bool = False
) -> Strategy:
    """Return the strategy for a usage: normal, high from aggressive_unload on, critical from `critical_ratio` on."""
    if usage >= critical_ratio:
        return Strategy("critical", 10, 0.0, overrides_preferences=True)
    if usage >= thresholds.aggressive_unload:
        return Strategy("high", 8 if increasing else 7, 5.0, overrides_preferences=True)
    return Strategy("normal", 5, 15.0, overrides_preferences=False)
