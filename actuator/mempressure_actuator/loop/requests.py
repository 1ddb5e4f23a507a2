"""Unload requests made by people, through the API or the status page: one at a time, never during a cycle.

`request_plans` decides what to do, the workers' agents do it, and each request is recorded as a cycle of its own.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from mempressure.control.loop import Machine
from mempressure.control.records import ActionRecord, Cycle, record_of
from mempressure.decide.eligibility import Rules
from mempressure.decide.plan import Action, Plan
from mempressure.errors import MempressureError
from mempressure.state.node import AppReading, NodeReading
from mempressure.state.records import PackageState
from mempressure_actuator.loop.request_plans import apps_tracking, plan_trim, plan_unload
from mempressure_actuator.schemas import TrimmedDict, UnloadedDict

MAX_WAITING = 4
"""Requests that may wait for the workers; more are refused, so that they never use up the server's threads."""
WAIT_SECONDS = 120.0


class WorkersBusyError(MempressureError):
    """An action on the workers is under way, and too many requests wait or have waited too long."""


class UnloadRequests:
    """Carries out requests to unload a package or to trim the workers.

    Args:
        machine: measures and acts.
        acting: the lock that every action on the workers holds.
        rules: returns the operator's current settings.
        record: stores a finished cycle.
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
        """Unload a package and return one result per app.

        Raises:
            UnknownPackageError: no worker tracks it.
            WorkersBusyError: other actions are under way; send the request again later.
            MeasureError: the host cannot be measured.
        """
        with self._exclusively():
            reading = self._machine.measure()
            rules = self._rules()
            plan = plan_unload(reading, package, app=app, force=force, rules=rules)
            cycle = self._carry_out(reading, plan, "forced" if force else "requested")
        return [
            _result(reading.apps[name], package, plan, cycle.actions) for name in apps_tracking(reading, package, app)
        ]

    def trim(self) -> list[TrimmedDict]:
        """Have every worker call its callbacks, and trim it; return one result per worker.

        Raises:
            WorkersBusyError: other actions are under way; send the request again later.
            MeasureError: the host cannot be measured.
        """
        with self._exclusively():
            reading = self._machine.measure()
            actions = plan_trim(reading)
            cycle = self._carry_out(reading, Plan(tuple(actions), ()), "requested")
        done = [(action.targets[0].worker.pid, record) for action, record in zip(actions, cycle.actions, strict=True)]
        trims = {pid: record for pid, record in done if record.mechanism == "trim"}
        return [
            {
                "app": app.name,
                "pid": worker.pid,
                "reclaimed_bytes": sum(record.reclaimed_bytes for pid, record in done if pid == worker.pid),
                "skipped_reason": _skipped_reason([trims[worker.pid]])
                if worker.pid in trims
                else worker.trim_refused or "is not serving",
            }
            for app in reading.apps.values()
            for worker in app.workers
        ]

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise WorkersBusyError(f"{MAX_WAITING} requests wait for the workers already; send this one again later")
        try:
            if not self._acting.acquire(timeout=WAIT_SECONDS):
                raise WorkersBusyError(f"the workers have been acted on for {WAIT_SECONDS:g} s; send this again later")
            try:
                yield
            finally:
                self._acting.release()
        finally:
            self._waiting.release()

    def _carry_out(self, reading: NodeReading, plan: Plan, strategy: str) -> Cycle:
        # Actions on a single app are measured on that app if it has a limit or a budget, else on the host.
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
            record = self._act(action, f"{cycle.id}.{number}")
            record.used_before = after.used
            after = self._machine.measure().memory(scope, app) or after
            record.used_after = after.used
            cycle.actions.append(record)
        cycle.usage_after, cycle.used_after = after.usage, after.used
        cycle.ended = time.time()
        cycle.outcome = "done" if any(record.workers for record in cycle.actions) else "skipped"
        if cycle.actions and all(record.dry_run for record in cycle.actions):
            cycle.outcome = "dry_run"
        cycle.reason = "" if plan.actions else "nothing can be unloaded as requested; the skips say why"
        self._record(cycle)
        return cycle

    def _act(self, action: Action, order_id: str) -> ActionRecord:
        started = time.time()
        outcome = self._machine.carry_out(action, order_id=order_id)
        return record_of(replace(action, reason="requested through the API"), outcome, started=started)


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


def _why_not(holders: Iterable[PackageState], reasons: Sequence[str]) -> str:
    if reasons:
        return reasons[0]
    loaded = [package for package in holders if package.loaded]
    if not loaded:
        return "is not loaded"
    return f"its mechanism, {loaded[0].mechanism}, does not unload packages here"
