"""Leaves a scope alone where cycle after cycle brought nothing, until something changes."""

import logging
import time
from collections.abc import Iterable

from mempressure.control.records import Cycle, Pressure, Scope
from mempressure.decide.summary import Observation
from mempressure.state.node import NodeReading
from mempressure_actuator.loop.brakes import Futility, Loads, loads_of
from mempressure_actuator.metrics import Metrics

_log = logging.getLogger(__name__)


class Standstill:
    """Remembers what the cycles of each scope brought; `mempressure_actuator.loop.brakes` decides.

    Args:
        most: cycles in a row that bring nothing.
        pause: seconds that a scope is left alone then.
        metrics: where that is shown.
    """

    def __init__(self, *, most: int, pause: float, metrics: Metrics) -> None:
        self._most = most
        self._pause = pause
        self._metrics = metrics
        self._futility: dict[Scope, Futility] = {}
        self._stopped: set[Scope] = set()

    def spared(self, found: Iterable[Pressure], reading: NodeReading, observation: Observation) -> list[Pressure]:
        """Return those pressures that are worth a cycle; tell of the others once."""
        now, stopped, left = time.monotonic(), set(), []
        for pressure in found:
            level, loads = _circumstances(pressure.key, reading, observation)
            known = self._futility.get(pressure.key, Futility())
            reason = known.reason_to_stop(level=level, loads=loads, now=now, most=self._most, pause=self._pause)
            if not reason:
                left.append(pressure)
                continue
            stopped.add(pressure.key)
            if pressure.key not in self._stopped:
                self._metrics.brakes.labels("futile_cycles").inc()
                _log.warning("left alone: scope=%s app=%r reason=%s", pressure.scope, pressure.app, reason)
        self._stopped = stopped
        self._metrics.stopped_scopes.set(len(stopped))
        return left

    def note(self, cycle: Cycle, reading: NodeReading, observation: Observation) -> None:
        """Take note of a cycle, and of how things stand after it."""
        scope = (cycle.scope, cycle.app)
        level, loads = _circumstances(scope, reading, observation)
        known = self._futility.pop(scope, Futility())
        known = known.after(cycle.outcome, level=level, loads=loads, now=time.monotonic())
        if known.cycles:
            self._futility[scope] = known


def _circumstances(scope: Scope, reading: NodeReading, observation: Observation) -> tuple[str, Loads]:
    """Return the highest threshold that a scope is at, and what is loaded in its apps."""
    held = next((report.held for report in observation.scopes if (report.scope, report.app) == scope), ())
    apps = [app for app in reading.apps.values() if scope[0] == "host" or app.name == scope[1]]
    return held[-1] if held else "", loads_of(apps)
