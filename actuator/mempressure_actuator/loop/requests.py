"""What the operator asks for: unload one package now, or trim every worker.

The same policy and the same agents as under pressure; only who asks differs. `force` overrides idle time and
`keep_loaded`, never a package in use, and never what makes recycling a worker unsafe.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mempressure.control.loop import Machine
from mempressure.control.records import ActionRecord, Cycle, record_of
from mempressure.decide.eligibility import Strategy
from mempressure.decide.plan import Action, Plan, Rules, Target, make_plan
from mempressure.errors import MempressureError, UnknownPackageError
from mempressure.state.node import AppReading, NodeReading
from mempressure.state.records import WorkerState
from mempressure_actuator.schemas import TrimmedDict, UnloadedDict

MAX_WAITING = 4
"""Requests that may wait for the workers; more are refused, so that they never use up the server's threads."""
WAIT_SECONDS = 120.0

_NO_LIMIT = 1_000_000


class BusyError(MempressureError):
    """The workers are being acted on, and others wait already."""


@dataclass(frozen=True, slots=True)
class _Requested(Strategy):
    """As asked for: after a package's own timeout, or at once where preferences are overridden."""

    def idle_seconds(self, timeout: float) -> float:
        return 0.0 if self.overrides_preferences else timeout


def plan_unload(reading: NodeReading, package: str, *, app: str, force: bool, rules: Rules) -> Plan:
    """Return what unloads a package, in one app or (app "") in all that have it, and why some of them keep it.

    Raises:
        UnknownPackageError: no worker tracks the package, or none of that app; the message names what is known.
    """
    apps = _tracking(reading, package, app)
    plan = make_plan(
        [replace(reading.apps[name], workers=_narrowed(reading.apps[name].workers, package)) for name in apps],
        # High enough to touch workers, and below emergency, at which a sole worker would be recycled.
        usage=rules.thresholds.unload_packages,
        strategy=_Requested("forced" if force else "requested", _NO_LIMIT, 0.0, overrides_preferences=force),
        rules=replace(
            rules, unloading_enabled=True, recycle_from="never" if rules.recycle_from == "never" else "normal"
        ),
        now=reading.sampled,
    )
    return Plan(tuple(action for action in plan.actions if package in action.packages), plan.skips)


def plan_trim(reading: NodeReading) -> list[Action]:
    """Return an action for every worker that may be trimmed."""
    return [
        Action("trim", app, (), (Target(worker, {}),), 0, "requested")
        for app in reading.apps.values()
        for worker in app.workers
        if worker.serving and not worker.trim_refused
    ]


class Requests:
    """Carries out what the operator asks for, one request at a time and never during a cycle.

    Args:
        machine: measures and acts.
        acting: held by whoever acts.
        rules: returns the operator's settings as they are now.
        record: keeps a finished cycle.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        acting: threading.Lock,
        rules: Callable[[], Rules],
        record: Callable[[Cycle], None],
    ) -> None:
        self._machine = machine
        self._acting = acting
        self._rules = rules
        self._record = record
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        self._numbers = itertools.count(1)

    def unload(self, package: str, *, app: str = "", force: bool = False) -> list[UnloadedDict]:
        """Unload a package and return one result an app.

        Raises:
            UnknownPackageError: nobody tracks it.
            BusyError: too much is going on.
            MeasureError: the host cannot be measured.
        """
        with self._alone():
            reading = self._machine.measure()
            rules = self._rules()
            plan = plan_unload(reading, package, app=app, force=force, rules=rules)
            cycle = self._carry_out(reading, plan, "forced" if force else "requested")
        return [_result(reading.apps[name], package, plan, cycle.actions) for name in _tracking(reading, package, app)]

    def trim(self) -> list[TrimmedDict]:
        """Trim every worker and return one result a worker.

        Raises:
            BusyError: too much is going on.
            MeasureError: the host cannot be measured.
        """
        with self._alone():
            reading = self._machine.measure()
            actions = plan_trim(reading)
            cycle = self._carry_out(reading, Plan(tuple(actions), ()), "requested")
        records = {action.targets[0].worker.pid: record for action, record in zip(actions, cycle.actions, strict=True)}
        return [
            {
                "app": app.name,
                "pid": worker.pid,
                "reclaimed_bytes": records[worker.pid].reclaimed_bytes if worker.pid in records else 0,
                "skipped_reason": _skipped_reason([records[worker.pid]])
                if worker.pid in records
                else worker.trim_refused or "is not serving",
            }
            for app in reading.apps.values()
            for worker in app.workers
        ]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise BusyError(f"{MAX_WAITING} requests wait for the workers already; send this one again later")
        try:
            if not self._acting.acquire(timeout=WAIT_SECONDS):
                raise BusyError(f"the workers have been acted on for {WAIT_SECONDS:g} s; send this again later")
            try:
                yield
            finally:
                self._acting.release()
        finally:
            self._waiting.release()

    def _carry_out(self, reading: NodeReading, plan: Plan, strategy: str) -> Cycle:
        # What is done to one app is measured on that app, where it has a limit or a budget to be measured against.
        apps = {action.app.name for action in plan.actions}
        app = apps.pop() if len(apps) == 1 else ""
        memory = reading.memory("app", app)
        scope, app, before = ("app", app, memory) if memory is not None else ("host", "", reading.host)
        cycle = Cycle(
            id=f"{reading.sampled:.3f}-api-{next(self._numbers)}",
            scope=scope,
            app=app,
            trigger="api",
            alert_key="",
            pressure_since=0.0,
            strategy=strategy,
            started=reading.sampled,
            usage_before=before.usage,
            used_before=before.used,
            skips=plan.skips,
        )
        after = before
        for number, action in enumerate(plan.actions):
            record = self._one(action, f"{cycle.id}.{number}")
            record.used_before = after.used
            after = self._machine.measure().memory(scope, app) or after
            record.used_after = after.used
            cycle.actions.append(record)
        cycle.usage_after, cycle.used_after = after.usage, after.used
        cycle.ended = time.time()
        cycle.outcome = "done" if any(record.workers for record in cycle.actions) else "skipped"
        if cycle.actions and all(record.dry_run for record in cycle.actions):
            cycle.outcome = "dry_run"
        cycle.reason = "" if plan.actions else "nothing of what was asked for can be done; see what was left alone"
        self._record(cycle)
        return cycle

    def _one(self, action: Action, order_id: str) -> ActionRecord:
        started = time.time()
        outcome = self._machine.carry_out(action, order_id=order_id)
        return record_of(replace(action, reason="requested through the API"), outcome, started=started)


def _tracking(reading: NodeReading, package: str, app: str) -> list[str]:
    known = {name: {p.name for w in reading.apps[name].workers for p in w.packages} for name in sorted(reading.apps)}
    if app and app not in known:
        raise UnknownPackageError(f"no app {app!r} has workers here; known are {_listed(known)}")
    names = [name for name, packages in known.items() if package in packages and app in ("", name)]
    if not names:
        others = set().union(*(packages for name, packages in known.items() if app in ("", name)))
        where = f"app {app!r}" if app else "app here"
        raise UnknownPackageError(f"no worker of {where} tracks {package!r}; known are {_listed(others)}")
    return names


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _narrowed(workers: Iterable[WorkerState], package: str) -> tuple[WorkerState, ...]:
    """Return the workers with only those packages that unloading `package` concerns.

    Recycling a worker concerns everything it is recycled for. Workers that do not hold the package stay, with nothing
    in them: whether a worker is the only one depends on them.
    """
    narrowed = []
    for worker in workers:
        mechanism = next((p.mechanism for p in worker.packages if p.name == package and p.loaded), None)
        packages = [
            p for p in worker.packages if p.name == package or (p.mechanism == mechanism == "recycle" and p.loaded)
        ]
        narrowed.append(replace(worker, packages=packages if mechanism else []))
    return tuple(narrowed)


def _result(app: AppReading, package: str, plan: Plan, records: Iterable[ActionRecord]) -> UnloadedDict:
    own = [record for record in records if record.app == app.name and package in record.packages]
    holders = [p for worker in app.workers for p in worker.packages if p.name == package]
    reasons = [skip.reason for skip in plan.skips if (skip.app, skip.package) == (app.name, package)]
    done = any(record.workers for record in own)
    return {
        "app": app.name,
        "package": package,
        "mechanism": own[0].mechanism if own else holders[0].mechanism,
        "reclaimed_bytes": sum(record.reclaimed_bytes for record in own),
        "workers": sum(record.workers for record in own),
        "skipped_reason": None if done else _skipped_reason(own) or _why_not(holders, reasons),
        "skipped": [reason for record in own for reason in record.skipped] + reasons,
        "errors": [error for record in own for error in record.errors],
    }


def _skipped_reason(records: Iterable[ActionRecord]) -> str | None:
    for record in records:
        if not record.workers:
            return (*record.errors, *record.skipped, "not done")[0]
    return None


def _why_not(holders: Iterable[Any], reasons: Iterable[str]) -> str:
    for reason in reasons:
        return reason
    loaded = [package for package in holders if package.loaded]
    if not loaded:
        return "is not loaded"
    return f"nothing here unloads by {loaded[0].mechanism}"
