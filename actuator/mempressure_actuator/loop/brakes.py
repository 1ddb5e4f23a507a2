"""The brakes: what keeps the actuator from doing harm where it is set wrongly or acts in vain. Pure functions.

What is remembered is passed in, and so is the time, in seconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds
from mempressure.errors import ConfigurationError
from mempressure.state.node import AppReading
from mempressure_actuator.schemas import CycleDict

BRAKES = ("threshold_floor", "recycles", "futile_cycles")
MINUTE = 60.0

Loads = frozenset[tuple[int, int, str, float]]
"""What is loaded: a worker's pid and start in ticks, a package, and how often that was loaded."""


def require_floor(thresholds: Thresholds, *, floor: float) -> None:
    """Check that no threshold that people set is so low that everything would be unloaded for ever.

    Raises:
        ConfigurationError: one is below the floor; the message names it.
    """
    for name in THRESHOLD_NAMES:
        value = thresholds.enter(name)
        if value < floor:
            raise ConfigurationError(
                f"threshold {name}={value:g} is below the floor {floor:g} (MEMPRESSURE_THRESHOLD_FLOOR): "
                f"packages would be unloaded without need; send {floor:g} or more"
            )


def recent(times: Iterable[float], *, now: float) -> tuple[float, ...]:
    """Return the times of the last minute; the absolute value counts, as the clock may have been set back."""
    return tuple(when for when in times if abs(now - when) < MINUTE)


def recycled(cycles: Iterable[CycleDict], *, now: float) -> dict[str, tuple[float, ...]]:
    """Return when workers of each app were recycled within the last minute, by the history."""
    found: dict[str, tuple[float, ...]] = {}
    for cycle in cycles:
        for action in cycle["actions"]:
            if action["mechanism"] == "recycle" and action["result"] in ("done", "failed"):
                found[action["app"]] = recent((*found.get(action["app"], ()), action["started"]), now=now)
    return found


def reason_not_to_recycle(times: Iterable[float], *, now: float, most: int) -> str:
    """Return why no further worker of an app is recycled now; empty where one may be.

    Args:
        times: when workers of this app were recycled.
        now: the time, on the same clock.
        most: how many may be in a minute.
    """
    count = len(recent(times, now=now))
    if count < most:
        return ""
    return f"{count} workers of the app were recycled within the last minute (MEMPRESSURE_RECYCLES_PER_MINUTE={most})"


@dataclass(frozen=True, slots=True)
class Futility:
    """How many cycles of a scope in a row brought nothing, when the last one ended, and what held then."""

    cycles: int = 0
    since: float = 0.0
    level: str = ""
    loads: Loads = frozenset()

    def after(self, outcome: str, *, level: str, loads: Loads, now: float) -> "Futility":
        """Return what is known after a cycle with this outcome at this alert level and with this loaded."""
        if outcome != "futile":
            return Futility()
        again = (level, loads) == (self.level, self.loads)
        return Futility(self.cycles + 1 if again else 1, now, level, loads)

    def reason_to_stop(self, *, level: str, loads: Loads, now: float, most: int, pause: float) -> str:
        """Return why no cycle is opened for the scope; empty where something changed, or the pause is over.

        Args:
            level: the alert level that the usage has reached.
            loads: what is loaded.
            now: the time, on the clock of `since`.
            most: futile cycles in a row after which it stops.
            pause: seconds after which it tries once more.
        """
        if self.cycles < most or (level, loads) != (self.level, self.loads) or now - self.since >= pause:
            return ""
        return f"{self.cycles} cycles in a row brought nothing; the next after {pause:g} s, or once something changed"


def loads_of(apps: Iterable[AppReading]) -> Loads:
    """Return what is loaded in these apps."""
    return frozenset(
        (worker.pid, worker.start_ticks, package.name, package.loads)
        for app in apps
        for worker in app.workers
        for package in worker.packages
        if package.loaded
    )
