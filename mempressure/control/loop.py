"""The control loop: measure, decide, act, measure, record.

It runs in the actuator, or inside an application that has none. Its caller says which scopes are under pressure;
the loop opens a cycle for each when one is due, and ends it as soon as a new measurement says relieved.
"""

import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from mempressure.act.executor import Outcome
from mempressure.act.mechanisms import mechanism, mechanisms
from mempressure.act.mechanisms.base import Mechanism
from mempressure.config.thresholds import DEFAULT_CRITICAL_RATIO, relieved
from mempressure.control.learned import Learned, quarantine_keys
from mempressure.control.records import Cycle, Pressure, Scope, record_of
from mempressure.decide.eligibility import Rules, Strategy, choose_strategy
from mempressure.decide.floor import reason_out_of_reach
from mempressure.decide.plan import Action, Plan, Skip, identity, make_plan
from mempressure.decide.quarantine import Key
from mempressure.decide.summary import Observation
from mempressure.measure.memory_reading import SHOW_SECONDS, MemoryReading
from mempressure.measure.trend import SLOW_GAP_SECONDS, Series, direction
from mempressure.state.node import AppReading, NodeReading

_log = logging.getLogger(__name__)

FUTILE_RATIO = 0.01
"""A cycle that freed less than this share of its scope is not repeated until something changes."""

SKIP_SECONDS = 15.0
"""Shortest time between two records that a scope was left alone, however often the reason changes."""

_MAX_REMEMBERED = 1000
"""Scopes whose newest pressure is remembered; where there are more, all are forgotten and remembered anew."""

_UNKNOWN = "its usage is not known: no worker of it serves here, or it has no limit and no budget"

LOGGED_NAMES = 5
"""Packages that are left alone are named in the log up to here; there is a line a cycle."""


class Machine(Protocol):
    """Measures and acts: `Executor`, in the actuator behind `GuardedMachine`; or a fake in a test."""

    def look(self) -> NodeReading:
        """Return what the workers published last, without asking them."""

    def measure(self) -> NodeReading:
        """Measure now."""

    def carry_out(self, action: Action, *, order_id: str) -> Outcome:
        """Do one action."""


class ControlLoop:
    """Opens cycles for scopes under pressure, never two on one measurement.

    Args:
        machine: measures and acts.
        rules: returns the operator's settings as they are now.
        record: keeps a finished cycle.
        progress: called with a cycle before its first action and after each, so that a kill in between leaves a record.
        critical_ratio: usage from which the strategy is critical.
        clock: Unix seconds.
        sleep: waits for freed memory to show.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        rules: Callable[[], Rules],
        record: Callable[[Cycle], None],
        progress: Callable[[Cycle], None] = lambda _: None,
        critical_ratio: float = DEFAULT_CRITICAL_RATIO,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._machine = machine
        self._rules = rules
        self._record = record
        self._progress = progress
        self._critical_ratio = critical_ratio
        self._clock = clock
        self._sleep = sleep
        self._ended: dict[Scope, float] = {}
        """When the last cycle that tried to unload packages ended, in Unix seconds: the strategy's pause begins."""
        self._futile: dict[Scope, tuple[str, frozenset[object]]] = {}
        """A strategy and the identities of actions, of cycles that freed too little or were dry runs under it."""
        self._trends: dict[Scope, Series] = {}
        """Used memory over time, from which a rising usage is recognised."""
        self._left_alone: dict[Scope, frozenset[tuple[str, str]]] = {}
        """(app, package) pairs that the log named last as left alone; only changes are logged."""
        self._skipped: dict[Scope, tuple[float, object]] = {}
        """When it was last recorded that nothing can be done, and for which strategy and packages."""
        self._newest_pressure: dict[Scope, float] = {}
        """When the newest pressure began, in Unix seconds; an alert is recorded as unneeded once only."""
        self._learned = Learned()
        self._unpaused = tuple(each for each in mechanisms() if each.ignores_pauses)
        self._cycles = 0
        """How many cycles were begun; part of their ids."""

    def run(self, pressures: Iterable[Pressure], *, paused: Collection[Scope] = ()) -> list[Cycle]:
        """Open a cycle for every scope that is under pressure and due; return those that acted.

        Args:
            pressures: one a scope.
            paused: scopes in which only what ignores pauses may be done.
        """
        cycles = []
        for pressure in pressures:
            cycle = self._cycle(pressure, self._due(pressure, paused=pressure.key in paused))
            if cycle is not None:
                cycles.append(cycle)
        return cycles

    def held_since(self, observation: Observation, before: Mapping[Scope, float]) -> dict[Scope, float]:
        """Return the scopes that have entered a threshold, and since when; end the episodes of those that have left.

        An episode is the time from when a scope comes under pressure until it is relieved.

        Args:
            observation: as of now.
            before: what this returned for the observation before.
        """
        scopes = [(report.scope, report.app) for report in observation.scopes if report.held]
        held = {scope: before.get(scope, observation.sampled) for scope in scopes}
        for scope in before.keys() - held.keys():  # `run` gets no pressure of theirs by which it could end them
            self.end_episode(scope)
        return held

    def end_episode(self, key: Scope) -> None:
        """Forget the pauses and refusals of a (scope, app) that is relieved: its next episode begins without them."""
        for by_scope in (self._ended, self._futile, self._left_alone, self._skipped):
            by_scope.pop(key, None)
        self._learned.end_episode(key)

    def _due(self, pressure: Pressure, *, paused: bool) -> tuple[Mechanism, ...]:
        """Return the mechanisms that may act on the scope now: none where it is not under pressure any more.

        While it is paused, or its last cycle is not as long ago as the strategy asks, those that ignore pauses may, and
        only where they have something to do. The strategy is that of the usage now: where it has become critical,
        nothing waits for a pause that began under a milder one.
        """
        reading = self._machine.look()
        memory = reading.memory(pressure.scope, pressure.app)
        if memory is None:
            self.end_episode(pressure.key)
            self._note_unneeded(pressure, reading, _UNKNOWN)
            return ()
        trend = self._trends.get(pressure.key, Series())
        self._trends[pressure.key] = trend.after(reading.sampled, memory.used, gap=SLOW_GAP_SECONDS)
        rules = self._rules()
        if relieved(memory.usage, rules.thresholds):
            self.end_episode(pressure.key)
            self._note_unneeded(pressure, reading, _recovered(memory, rules))
            return ()
        since = self._clock() - self._ended.get(pressure.key, -math.inf)
        # Negative where the clock was set back: what it would then wait for could be hours away.
        if not paused and not 0 <= since < self._strategy(pressure, memory, rules).pause_seconds:
            return mechanisms()
        return self._unpaused if self._plan(pressure, reading, memory, rules, self._unpaused).actions else ()

    def _plan(
        self, pressure: Pressure, reading: NodeReading, memory: MemoryReading, rules: Rules, by: Iterable[Mechanism]
    ) -> Plan:
        strategy = self._strategy(pressure, memory, rules)
        futile_strategy, futile = self._futile.get(pressure.key, ("", frozenset()))
        return make_plan(
            _candidates(reading, pressure),
            mechanisms=by,
            usage=memory.usage,
            strategy=strategy,
            rules=rules,
            now=reading.sampled,
            experience=self._learned.experience(futile=futile if futile_strategy == strategy.name else ()),
        )

    def _strategy(self, pressure: Pressure, memory: MemoryReading, rules: Rules) -> Strategy:
        trend = self._trends[pressure.key]
        return choose_strategy(
            memory.usage,
            rules.thresholds,
            critical_ratio=self._critical_ratio,
            increasing=direction(trend.slope, total_bytes=memory.total) == "increasing",
        )

    def _cycle(self, pressure: Pressure, by: Sequence[Mechanism]) -> Cycle | None:
        """Measure, and have the mechanisms act; return the cycle, None where there was nothing to do."""
        if not by:
            return None
        rules = self._rules()
        reading = self._machine.measure()
        memory = reading.memory(pressure.scope, pressure.app)
        if memory is None:
            return None
        if relieved(memory.usage, rules.thresholds):
            self._note_unneeded(pressure, reading, _recovered(memory, rules))
            return None
        self._note_pressure(pressure)
        strategy = self._strategy(pressure, memory, rules)
        self._learned.observe(reading)
        plan = self._plan(pressure, reading, memory, rules, by)
        self._log_left_alone(pressure, plan)
        floors = {app.name: reason_out_of_reach(app, rules.thresholds) for app in _candidates(reading, pressure)}
        skips = (*(Skip(app, "", floor) for app, floor in floors.items() if floor), *plan.skips)
        cycle = self._new_cycle(pressure, reading, strategy=strategy.name, skips=skips)
        if not plan.actions:
            if by is not self._unpaused:
                self._note_left_alone(cycle, pressure, rules, floor=floors.get(pressure.app, ""))
            return None
        self._progress(cycle)
        self._act(cycle, pressure, plan.actions, rules)
        self._close(cycle, pressure, strategy, plan.actions, memory.total)
        self._learned.forget_gone(reading)
        return cycle

    def _new_cycle(
        self, pressure: Pressure, reading: NodeReading, *, strategy: str = "", skips: tuple[Skip, ...] = ()
    ) -> Cycle:
        memory = reading.memory(pressure.scope, pressure.app)
        usage, used = (memory.usage, memory.used) if memory is not None else (0.0, 0)
        self._cycles += 1
        return Cycle(
            id=f"{reading.sampled:.3f}-{self._cycles}",
            scope=pressure.scope,
            app=pressure.app,
            trigger=pressure.trigger,
            alert_key=pressure.alert_key,
            alert_level=pressure.alert_level,
            pressure_since=pressure.since,
            strategy=strategy,
            started=reading.sampled,
            usage_before=usage,
            used_before=used,
            # Until there is a measurement after an action; an app can go away before there is one.
            usage_after=usage,
            used_after=used,
            skips=skips,
        )

    def _note_pressure(self, pressure: Pressure) -> bool:
        """Remember when this pressure began; return whether it is newer than all before of its scope."""
        if pressure.since <= self._newest_pressure.get(pressure.key, -1.0):
            return False
        if len(self._newest_pressure) >= _MAX_REMEMBERED:
            self._newest_pressure.clear()
        self._newest_pressure[pressure.key] = pressure.since
        return True

    def _note_unneeded(self, pressure: Pressure, reading: NodeReading, reason: str) -> None:
        """Record once that nothing is done for an alert, since a measurement does not confirm it."""
        if pressure.trigger == "webhook" and self._note_pressure(pressure):
            known = reading.memory(pressure.scope, pressure.app) is not None
            self._skip(self._new_cycle(pressure, reading), "recovered" if known else "skipped", reason)

    def _note_left_alone(self, cycle: Cycle, pressure: Pressure, rules: Rules, *, floor: str) -> None:
        """Record that nothing can be done, once for the same packages and strategy, and not too often for others."""
        recorded, known = self._skipped.get(pressure.key, (0.0, None))
        what = (cycle.strategy, frozenset((skip.app, skip.package) for skip in cycle.skips))
        if what == known or 0 <= cycle.started - recorded < SKIP_SECONDS:
            return
        self._skipped[pressure.key] = (cycle.started, what)
        if not rules.unloading_enabled:
            reason = "unloading for memory pressure is turned off"
        elif floor:
            reason = floor
        elif self._futile.get(pressure.key, ("", ()))[1]:
            reason = "what can be done was done without effect, and nothing has changed since"
        else:
            reason = "every loaded package is left alone" if cycle.skips else "nothing is loaded that can be unloaded"
        self._skip(cycle, "skipped", reason)

    def _skip(self, cycle: Cycle, outcome: str, reason: str) -> None:
        cycle.outcome, cycle.reason, cycle.ended = outcome, reason, self._clock()
        self._record(cycle)

    def _act(self, cycle: Cycle, pressure: Pressure, actions: Iterable[Action], rules: Rules) -> None:
        unreplaced: set[str] = set()
        disappointing: set[Key] = set()
        waiting = deque(actions)
        for number in itertools.count():
            if not waiting:
                return
            action = waiting.popleft()
            # One worker after the other: where a successor did not come, the next worker may be the last that serves.
            replaces_worker = mechanism(action.mechanism).replaces_worker
            if replaces_worker and action.app.name in unreplaced:
                continue
            keys = quarantine_keys(action)
            if keys and disappointing.issuperset(keys):
                continue
            started = self._clock()
            outcome = self._machine.carry_out(action, order_id=f"{cycle.id}.{number}")
            if replaces_worker and outcome.errors:
                unreplaced.add(action.app.name)
            disappointing |= self._learned.note(
                action, outcome, scope=pressure.key, started=started, ended=self._clock()
            )
            record = record_of(action, outcome, started=started, used=cycle.used_after)
            cycle.actions.append(record)
            # What a trim gives back shows at once; only the end of a process may take time to show.
            unloads = mechanism(action.mechanism).unloads_packages
            reading = self._measure_after(cycle, outcome.reclaimed_bytes if unloads else 0)
            record.used_after = cycle.used_after
            self._progress(cycle)
            if relieved(cycle.usage_after, rules.thresholds):
                cycle.outcome = "relieved"
                return
            # The usage may have risen meanwhile: a successor can take a minute.
            if (memory := reading.memory(*pressure.key)) is not None:
                waiting.extendleft(self._plan(pressure, reading, memory, rules, self._unpaused).actions)

    def _measure_after(self, cycle: Cycle, reclaimed: int) -> NodeReading:
        """Measure until half of what was reclaimed shows, two seconds at most: never act twice on one measurement."""
        before = cycle.used_after
        deadline = self._clock() + SHOW_SECONDS
        while True:
            reading = self._machine.measure()
            memory = reading.memory(cycle.scope, cycle.app)
            if memory is None:
                return reading
            cycle.usage_after, cycle.used_after = memory.usage, memory.used
            if not reclaimed or before - memory.used >= reclaimed // 2 or self._clock() >= deadline:
                return reading
            self._sleep(0.05)

    def _close(
        self, cycle: Cycle, pressure: Pressure, strategy: Strategy, actions: Iterable[Action], total: int
    ) -> None:
        cycle.ended = self._clock()
        freed = cycle.used_before - cycle.used_after
        if not cycle.outcome:
            cycle.outcome = "effective" if freed >= FUTILE_RATIO * total else "futile"
        if all(record.dry_run for record in cycle.actions):
            cycle.outcome = "dry_run"
        if cycle.outcome in ("futile", "dry_run"):
            name, known = self._futile.get(pressure.key, ("", frozenset()))
            unpaused = {each.name for each in self._unpaused}
            tried = frozenset(identity(action) for action in actions if action.mechanism not in unpaused)
            self._futile[pressure.key] = (strategy.name, tried | known if name == strategy.name else tried)
        else:
            self._futile.pop(pressure.key, None)
        # Trimming counts nothing: a cycle that only trimmed does not hold up the one that unloads.
        if any(mechanism(action.mechanism).unloads_packages for action in cycle.actions):
            self._ended[pressure.key] = cycle.ended
        self._record(cycle)

    def _log_left_alone(self, pressure: Pressure, plan: Plan) -> None:
        left = frozenset((skip.app, skip.package) for skip in plan.skips)
        if left != self._left_alone.get(pressure.key):
            self._left_alone[pressure.key] = left
            if left:
                names = sorted({"/".join(filter(None, each)) for each in left})
                more = f" and {len(names) - LOGGED_NAMES} more" if len(names) > LOGGED_NAMES else ""
                words = "left alone: scope=%s app=%r packages=%d names=%r; each with its reason at level debug"
                listed = ", ".join(names[:LOGGED_NAMES]) + more
                _log.info(words, pressure.scope, pressure.app, len(names), listed)
            for skip in plan.skips:
                _log.debug("left alone: app=%s package=%s reason=%r", skip.app, skip.package, skip.reason)


def _recovered(memory: MemoryReading, rules: Rules) -> str:
    thresholds = rules.thresholds
    return f"usage {memory.usage:.4f} is below {thresholds.exit('unload_packages'):g}, where unloading ends"


def _candidates(reading: NodeReading, pressure: Pressure) -> list[AppReading]:
    if pressure.scope == "host":
        return list(reading.apps.values())
    return [app for name, app in reading.apps.items() if name == pressure.app]
