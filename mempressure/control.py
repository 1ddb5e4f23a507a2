"""The control loop: measure, decide, act, measure, record.

It runs in the actuator, or inside an application that has none. Whoever runs it says which scopes are under pressure;
the loop opens a cycle for each when one is due, and ends it as soon as a new measurement says relieved.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from mempressure.action import Outcome
from mempressure.node import AppReading, NodeReading
from mempressure.policy import Action, Plan, Rules, Skip, Strategy, choose_strategy, make_plan
from mempressure.thresholds import relieved

_log = logging.getLogger(__name__)

SHOW_SECONDS = 2.0
"""How long freed memory may take to show in a measurement (a cgroup's counters lag)."""

FUTILE_RATIO = 0.01
"""A cycle that freed less than this share of its scope is not repeated until something changes."""


class Machine(Protocol):
    """Measures and acts: `mempressure.action.Executor`, or a fake in a test."""

    def measure(self) -> NodeReading:
        """Measure now."""

    def carry_out(self, action: Action, *, order_id: str) -> Outcome:
        """Do one action."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """A scope under pressure and who said so: "host" with app "", or "app" with its name."""

    scope: str
    app: str
    trigger: str
    """webhook, autonomous or api."""
    since: float = 0.0
    """When the pressure was first heard of, in Unix seconds; 0 where that is not known."""
    alert_key: str = ""
    """Which alert said so: its fingerprint."""
    alert_level: str = ""
    """And its level."""

    @property
    def key(self) -> tuple[str, str]:
        """Return what identifies the scope."""
        return (self.scope, self.app)


@dataclass(slots=True, kw_only=True)
class ActionRecord:
    """One action of a cycle, as it is kept."""

    app: str
    mechanism: str
    packages: tuple[str, ...]
    reason: str
    reclaimed_bytes: int
    workers: int
    skipped: tuple[str, ...]
    errors: tuple[str, ...]
    started: float
    duration_seconds: float

    @property
    def result(self) -> str:
        """Return done, skipped or failed."""
        if self.workers:
            return "done"
        return "failed" if self.errors else "skipped"


@dataclass(slots=True, kw_only=True)
class Cycle:
    """One cycle: what was measured before and after (bytes, ratios, Unix seconds), what was done, what was left."""

    id: str
    scope: str
    app: str
    trigger: str
    alert_key: str
    alert_level: str = ""
    pressure_since: float
    strategy: str
    started: float
    usage_before: float
    used_before: int
    usage_after: float = 0.0
    used_after: int = 0
    ended: float = 0.0
    outcome: str = ""
    actions: list[ActionRecord] = field(default_factory=list)
    skips: tuple[Skip, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        content = asdict(self)
        for action, record in zip(content["actions"], self.actions, strict=True):
            action["result"] = record.result
        return content


class ControlLoop:
    """Opens cycles for scopes under pressure, never two on one measurement.

    Args:
        machine: measures and acts.
        rules: returns the operator's settings as they are now.
        record: keeps a finished cycle.
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
        critical_ratio: float = 0.95,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._machine = machine
        self._rules = rules
        self._record = record
        self._critical_ratio = critical_ratio
        self._clock = clock
        self._sleep = sleep
        self._due: dict[tuple[str, str], float] = {}
        self._futile: dict[tuple[str, str], tuple[str, frozenset[object]]] = {}
        self._left_alone: dict[tuple[str, str], frozenset[tuple[str, str]]] = {}
        self._trimmed: dict[tuple[int, int], float] = {}
        self._cycles = 0

    def run(self, pressures: Iterable[Pressure]) -> list[Cycle]:
        """Open a cycle for every scope that is under pressure and due; return those that acted."""
        cycles = []
        for pressure in pressures:
            if self._clock() >= self._due.get(pressure.key, 0.0):
                cycle = self._cycle(pressure)
                if cycle is not None:
                    cycles.append(cycle)
        return cycles

    def _cycle(self, pressure: Pressure) -> Cycle | None:
        rules = self._rules()
        reading = self._machine.measure()
        memory = reading.memory(pressure.scope, pressure.app)
        if memory is None or relieved(memory.usage, rules.thresholds):
            self._futile.pop(pressure.key, None)
            return None
        strategy = choose_strategy(memory.usage, rules.thresholds, critical_ratio=self._critical_ratio)
        plan = make_plan(
            _candidates(reading, pressure),
            usage=memory.usage,
            strategy=strategy,
            rules=rules,
            now=reading.sampled,
            trimmed=self._trimmed,
        )
        actions = self._worthwhile(pressure, strategy, plan)
        self._log_left_alone(pressure, plan)
        if not actions:
            return None
        self._cycles += 1
        cycle = Cycle(
            id=f"{reading.sampled:.3f}-{self._cycles}",
            scope=pressure.scope,
            app=pressure.app,
            trigger=pressure.trigger,
            alert_key=pressure.alert_key,
            alert_level=pressure.alert_level,
            pressure_since=pressure.since,
            strategy=strategy.name,
            started=reading.sampled,
            usage_before=memory.usage,
            used_before=memory.used,
            # Until there is a measurement after an action; an app can go away before there is one.
            usage_after=memory.usage,
            used_after=memory.used,
            skips=plan.skips,
        )
        self._act(cycle, actions, rules)
        self._close(cycle, pressure, strategy, actions, memory.total)
        return cycle

    def _worthwhile(self, pressure: Pressure, strategy: Strategy, plan: Plan) -> list[Action]:
        name, futile = self._futile.get(pressure.key, ("", frozenset()))
        return [action for action in plan.actions if name != strategy.name or _identity(action) not in futile]

    def _act(self, cycle: Cycle, actions: Iterable[Action], rules: Rules) -> None:
        unreplaced: set[str] = set()
        for number, action in enumerate(actions):
            # One worker after the other: where a successor did not come, the next worker may be the last that serves.
            if action.mechanism == "recycle" and action.app.name in unreplaced:
                continue
            started = self._clock()
            outcome = self._machine.carry_out(action, order_id=f"{cycle.id}.{number}")
            if action.mechanism == "recycle" and outcome.errors:
                unreplaced.add(action.app.name)
            if action.mechanism == "trim":
                for target in action.targets:
                    self._trimmed[(target.worker.pid, target.worker.start_ticks)] = started
            cycle.actions.append(_recorded(action, outcome, started))
            # What a trim gives back is the worker's own at once; only the end of a process may take time to show.
            self._measure_after(cycle, outcome.reclaimed_bytes if action.packages else 0)
            if relieved(cycle.usage_after, rules.thresholds):
                cycle.outcome = "relieved"
                return

    def _measure_after(self, cycle: Cycle, reclaimed: int) -> None:
        """Measure until half of what was reclaimed shows, two seconds at most: never act twice on one measurement."""
        before = cycle.used_after
        deadline = self._clock() + SHOW_SECONDS
        while True:
            reading = self._machine.measure()
            memory = reading.memory(cycle.scope, cycle.app)
            if memory is None:
                return
            cycle.usage_after, cycle.used_after = memory.usage, memory.used
            if not reclaimed or before - memory.used >= reclaimed // 2 or self._clock() >= deadline:
                return
            self._sleep(0.05)

    def _close(
        self, cycle: Cycle, pressure: Pressure, strategy: Strategy, actions: Iterable[Action], total: int
    ) -> None:
        cycle.ended = self._clock()
        freed = cycle.used_before - cycle.used_after
        if not cycle.outcome:
            cycle.outcome = "effective" if freed >= FUTILE_RATIO * total else "futile"
        if cycle.outcome == "futile":
            name, known = self._futile.get(pressure.key, ("", frozenset()))
            tried = frozenset(_identity(action) for action in actions)
            self._futile[pressure.key] = (strategy.name, tried | known if name == strategy.name else tried)
        else:
            self._futile.pop(pressure.key, None)
        # Trimming counts nothing: a cycle that only trimmed does not hold up the one that unloads.
        unloaded = any(action.packages for action in cycle.actions)
        self._due[pressure.key] = cycle.ended + (strategy.pause_seconds if unloaded else 0.0)
        self._record(cycle)

    def _log_left_alone(self, pressure: Pressure, plan: Plan) -> None:
        left = frozenset((skip.app, skip.package) for skip in plan.skips)
        if left != self._left_alone.get(pressure.key):
            self._left_alone[pressure.key] = left
            for skip in plan.skips:
                _log.info("left alone: app=%s package=%s reason=%r", skip.app, skip.package, skip.reason)


def _candidates(reading: NodeReading, pressure: Pressure) -> list[AppReading]:
    if pressure.scope == "host":
        return list(reading.apps.values())
    return [app for name, app in reading.apps.items() if name == pressure.app]


def _identity(action: Action) -> tuple[object, ...]:
    """Name an action with the workers and loads it is for, so that it differs once anything about it changed."""
    held = tuple(
        (target.worker.pid, target.worker.start_ticks, tuple(p.loads for p in target.worker.packages))
        for target in action.targets
    )
    return (action.mechanism, action.app.name, action.packages, held)


def _recorded(action: Action, outcome: Outcome, started: float) -> ActionRecord:
    return ActionRecord(
        app=action.app.name,
        mechanism=action.mechanism,
        packages=action.packages,
        reason=action.reason,
        reclaimed_bytes=outcome.reclaimed_bytes,
        workers=outcome.workers,
        skipped=outcome.skipped,
        errors=outcome.errors,
        started=started,
        duration_seconds=outcome.duration_seconds,
    )
