"""Reading the node, and acting on its workers within the actuator's limits.

`GuardedMachine` is what the control loop acts through; it passes actions on to `mempressure.act.executor`, which sends
orders to the workers' agents.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from mempressure.act.executor import Outcome
from mempressure.act.mechanisms import mechanism
from mempressure.control.loop import Machine
from mempressure.decide.plan import Action
from mempressure.errors import MempressureError, UnsafeDirectoryError
from mempressure.log_once import LogOnce
from mempressure.measure.memory import host_memory
from mempressure.state.node import NodeReading
from mempressure.state.node_reader import read_node
from mempressure_actuator.loop.brakes import reason_not_to_recycle, recent

_log = logging.getLogger(__name__)


class NodeReader:
    """Reads the host's memory and the workers' state files; may be used by several threads.

    Args:
        runtime: the runtime directory.
        proc: where the kernel's files are.
        count_problem: called for each file or directory that is ignored, at every reading.
    """

    def __init__(self, runtime: Path, *, proc: str = "/proc", count_problem: Callable[[], None]) -> None:
        self._runtime = runtime
        self._proc = proc
        self._count_problem = count_problem
        self._once = LogOnce(__name__)

    def read(self) -> NodeReading:
        """Return the node as it is now; without apps if the runtime directory is writable by others.

        Raises:
            MeasureError: the host cannot be measured.
        """
        try:
            reading = read_node(self._runtime, proc=self._proc, on_problem=self._on_problem)
        except (UnsafeDirectoryError, OSError) as error:
            self._count_problem()
            self._once.error("directory", "runtime directory not used, no worker is managed: reason=%s", error)
            return NodeReading(time.time(), host_memory(proc=self._proc), {})
        if self._once.over("directory"):
            _log.info("runtime directory used again: path=%s", self._runtime)
        return reading

    def _on_problem(self, problem: MempressureError) -> None:
        self._count_problem()
        self._once.warning(str(problem), "state file ignored: reason=%s", problem)


class GuardedMachine:
    """Measures and acts for the control loop, except in a dry run, against a brake, or while the actuator stops.

    Args:
        machine: measures and acts: `mempressure.act.executor.Executor`.
        dry_run: mechanisms that are decided on and recorded, and not carried out.
        recycles_per_minute: workers of one app that may be recycled in a minute.
        recycled: when workers of each app were recycled before, in Unix seconds.
        on_brake: called with the name of a brake that prevented an action.
        stopping: set once no further action may begin.
        observe: called with each action and its outcome.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        dry_run: Collection[str],
        recycles_per_minute: int,
        recycled: Mapping[str, tuple[float, ...]],
        on_brake: Callable[[str], None],
        stopping: threading.Event,
        observe: Callable[[Action, Outcome], None],
    ) -> None:
        self._machine = machine
        self._dry_run = dry_run
        self._recycles_per_minute = recycles_per_minute
        self._recycled = dict(recycled)
        self._on_brake = on_brake
        self._stopping = stopping
        self._observe = observe

    def look(self) -> NodeReading:
        """Return what the workers published last."""
        return self._machine.look()

    def measure(self) -> NodeReading:
        """Measure now."""
        return self._machine.measure()

    def carry_out(self, action: Action, *, order_id: str) -> Outcome:
        """Do one action; errors are part of the outcome, none is raised."""
        if self._stopping.is_set():
            return _not_done("the actuator is stopping")
        if action.mechanism in self._dry_run:
            outcome = replace(_not_done("dry run"), dry_run=True)
        elif reason := self._reason_to_brake(action):
            self._on_brake("recycles")
            outcome = _not_done(reason)
        else:
            outcome = self._act(action, order_id)
            self._note_recycled(action, outcome)
        self._observe(action, outcome)
        _log.info(
            "action: order=%s app=%s mechanism=%s packages=%s workers=%d reclaimed_bytes=%d expected_bytes=%d "
            "skipped=%r errors=%r notes=%r",
            order_id,
            action.app.name,
            action.mechanism,
            ",".join(action.packages),
            outcome.workers,
            outcome.reclaimed_bytes,
            action.expected_bytes,
            outcome.skipped,
            outcome.errors,
            outcome.notes,
        )
        return outcome

    def _reason_to_brake(self, action: Action) -> str:
        if not mechanism(action.mechanism).replaces_worker:
            return ""
        times = self._recycled.get(action.app.name, ())
        return reason_not_to_recycle(times, now=time.time(), most=self._recycles_per_minute)

    def _note_recycled(self, action: Action, outcome: Outcome) -> None:
        # Where no successor came, or the order's answer was lost, a worker may have ended all the same.
        if mechanism(action.mechanism).replaces_worker and (outcome.workers or outcome.errors):
            now = time.time()
            kept = {app: recent(times, now=now) for app, times in self._recycled.items()}
            self._recycled = {app: times for app, times in kept.items() if times}
            self._recycled[action.app.name] = (*self._recycled.get(action.app.name, ()), now)

    def _act(self, action: Action, order_id: str) -> Outcome:
        started = time.monotonic()
        try:
            return self._machine.carry_out(action, order_id=order_id)
        except Exception as error:  # noqa: BLE001 -- one worker's faulty answer must not stop the actions on the others
            _log.exception("action failed: order=%s", order_id)
            return Outcome(0, 0, (), (f"{type(error).__name__}: {error}",), time.monotonic() - started)


def _not_done(reason: str) -> Outcome:
    return Outcome(0, 0, (reason,), (), 0.0)
