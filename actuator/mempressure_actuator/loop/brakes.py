"""Brakes: limits that keep a misconfigured or ineffective actuator from doing harm.

A floor for thresholds, a limit of recycled workers per minute, and a pause for scopes whose cycles free too little.
`FutilityBrake` keeps the state of that pause; the functions are pure, with times passed in, in seconds.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from mempressure.act.mechanisms import mechanism, worker_replacing_names
from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds
from mempressure.control.records import Cycle, Pressure, Scope
from mempressure.decide.summary import Observation
from mempressure.errors import ConfigurationError
from mempressure.state.node import AppReading, NodeReading
from mempressure_actuator.metrics import Metrics
from mempressure_actuator.schemas import CycleDict

_log = logging.getLogger(__name__)

MINUTE = 60.0

Loads = frozenset[tuple[int, int, str, float]]
"""Loaded packages: a worker's pid and start in ticks, the package, and how often it was loaded."""


def require_floor(thresholds: Thresholds, *, floor: float) -> None:
    """Check that no threshold is so low that packages would be unloaded all the time; `floor` is a ratio.

    Raises:
        ConfigurationError: a threshold is below the floor; the message names it.
    """
    for name in THRESHOLD_NAMES:
        value = thresholds.enter(name)
        if value < floor:
            raise ConfigurationError(
                f"threshold {name}={value:g} is below the floor {floor:g} (MEMPRESSURE_THRESHOLD_FLOOR): "
                f"packages would be unloaded without need; send {floor:g} or more"
            )


def recent(times: Iterable[float], *, now: float) -> tuple[float, ...]:
    """Return the times of the last minute, and of the next: the clock may have been set back."""
    return tuple(when for when in times if abs(now - when) < MINUTE)


def recent_recycles(cycles: Iterable[CycleDict], *, now: float) -> dict[str, tuple[float, ...]]:
    """Return when workers of each app were recycled within the last minute, by the history (Unix seconds)."""
    replacing = worker_replacing_names()
    found: dict[str, tuple[float, ...]] = {}
    for cycle in cycles:
        for action in cycle["actions"]:
            if action["mechanism"] in replacing and action["result"] in ("done", "failed"):
                found[action["app"]] = recent((*found.get(action["app"], ()), action["started"]), now=now)
    return found


def reason_not_to_recycle(times: Iterable[float], *, now: float, most: int) -> str:
    """Return why no further worker of an app is recycled now; empty if one may be.

    Args:
        times: when workers of this app were recycled.
        now: the time, on the same clock.
        most: how many may be recycled in a minute.
    """
    count = len(recent(times, now=now))
    if count < most:
        return ""
    return f"{count} workers of the app were recycled within the last minute (MEMPRESSURE_RECYCLES_PER_MINUTE={most})"


@dataclass(frozen=True, slots=True)
class FutileCycles:
    """Consecutive cycles of a scope that freed too little: how many, when the last ended, and its circumstances."""

    count: int = 0
    since: float = 0.0
    level: str = ""
    loads: Loads = frozenset()

    def after(self, outcome: str, *, level: str, loads: Loads, now: float) -> "FutileCycles":
        """Return the count after a cycle with this outcome, given the threshold that holds and what is loaded."""
        if outcome != "futile":
            return FutileCycles()
        again = (level, loads) == (self.level, self.loads)
        return FutileCycles(self.count + 1 if again else 1, now, level, loads)

    def reason_to_pause(self, *, level: str, loads: Loads, now: float, most: int, pause: float) -> str:
        """Return why no cycle is opened for the scope; empty if something changed, or the pause is over.

        Args:
            level: the highest threshold that holds for the scope.
            loads: what is loaded in it.
            now: the time, on the clock of `since`.
            most: futile cycles in a row after which the scope is paused.
            pause: seconds after which one more cycle is tried.
        """
        if self.count < most or (level, loads) != (self.level, self.loads) or now - self.since >= pause:
            return ""
        return f"{self.count} cycles in a row freed too little; the next after {pause:g} s, or once something changed"


class FutilityBrake:
    """Pauses scopes whose cycles free too little, until something changes.

    Args:
        most: futile cycles in a row after which a scope is paused.
        pause: for how many seconds.
        metrics: where paused scopes are shown.
    """

    def __init__(self, *, most: int, pause: float, metrics: Metrics) -> None:
        self._most = most
        self._pause = pause
        self._metrics = metrics
        self._futile: dict[Scope, FutileCycles] = {}
        self._paused: set[Scope] = set()

    def paused(self, pressures: Iterable[Pressure], reading: NodeReading, observation: Observation) -> frozenset[Scope]:
        """Return the scopes among these pressures that are paused; log and count each whose pause begins."""
        now, paused = time.monotonic(), set()
        for pressure in pressures:
            level, loads = _circumstances(pressure.key, reading, observation)
            known = self._futile.get(pressure.key, FutileCycles())
            reason = known.reason_to_pause(level=level, loads=loads, now=now, most=self._most, pause=self._pause)
            if not reason:
                continue
            paused.add(pressure.key)
            if pressure.key not in self._paused:
                self._metrics.brakes.labels("futile_cycles").inc()
                _log.warning("scope paused: scope=%s app=%r reason=%s", pressure.scope, pressure.app, reason)
        self._paused = paused
        self._metrics.stopped_scopes.set(len(paused))
        return frozenset(paused)

    def note(self, cycle: Cycle, reading: NodeReading, observation: Observation) -> None:
        """Count a finished cycle; `reading` and `observation` are from after it."""
        if cycle.outcome == "futile" and all(mechanism(action.mechanism).ignores_pauses for action in cycle.actions):
            return  # it was done in spite of a pause, which it does not begin anew
        scope = (cycle.scope, cycle.app)
        level, loads = _circumstances(scope, reading, observation)
        known = self._futile.pop(scope, FutileCycles())
        known = known.after(cycle.outcome, level=level, loads=loads, now=time.monotonic())
        if known.count:
            self._futile[scope] = known


def loads_of(apps: Iterable[AppReading]) -> Loads:
    """Return what is loaded in these apps."""
    return frozenset(
        (worker.pid, worker.start_ticks, package.name, package.loads)
        for app in apps
        for worker in app.workers
        for package in worker.packages
        if package.loaded
    )


def _circumstances(scope: Scope, reading: NodeReading, observation: Observation) -> tuple[str, Loads]:
    """Return the highest threshold that holds for a scope, and what is loaded in its apps."""
    held = next((report.held for report in observation.scopes if (report.scope, report.app) == scope), ())
    apps = [app for app in reading.apps.values() if scope[0] == "host" or app.name == scope[1]]
    return held[-1] if held else "", loads_of(apps)
