"""The machine that the actuator looks at and acts on: state files and agents, with whatever goes wrong told once."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mempressure.action import Outcome
from mempressure.control import Machine
from mempressure.errors import MempressureError, UnsafeDirectoryError
from mempressure.memory import host_memory
from mempressure.node import NodeReading, read_node
from mempressure.policy import Action

_log = logging.getLogger(__name__)

_MAX_REMEMBERED_PROBLEMS = 1000


class NodeReader:
    """Reads the host and what its workers published; may be used by several threads.

    Args:
        runtime: the runtime directory.
        proc: where the kernel's files are.
        count_problem: called for each thing that cannot be believed, at every reading.
    """

    def __init__(self, runtime: Path, *, proc: str = "/proc", count_problem: Callable[[], None]) -> None:
        self._runtime = runtime
        self._proc = proc
        self._count_problem = count_problem
        self._told: set[str] = set()
        self._directory_problem = ""

    def read(self) -> NodeReading:
        """Return the node as it is now; without apps where the runtime directory is open to others.

        Raises:
            MeasureError: the host cannot be measured.
        """
        try:
            reading = read_node(self._runtime, proc=self._proc, on_problem=self._on_problem)
        except (UnsafeDirectoryError, OSError) as error:
            self._count_problem()
            if str(error) != self._directory_problem:
                self._directory_problem = str(error)
                _log.error("runtime directory not used, no worker is managed: reason=%s", error)
            return NodeReading(time.time(), host_memory(proc=self._proc), {})
        if self._directory_problem:
            self._directory_problem = ""
            _log.info("runtime directory used again: path=%s", self._runtime)
        return reading

    def _on_problem(self, problem: MempressureError) -> None:
        self._count_problem()
        text = str(problem)
        if text in self._told:
            return
        if len(self._told) >= _MAX_REMEMBERED_PROBLEMS:
            self._told.clear()
        self._told.add(text)
        _log.warning("state ignored: reason=%s", text)


class Workers:
    """Measures and acts for the control loop, unless it is a dry run or the actuator is stopping.

    Args:
        machine: what really measures and acts.
        dry_run: decide and record, act not.
        stopping: set once no further action may begin.
        observe: told of each action and its outcome.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        dry_run: bool,
        stopping: threading.Event,
        observe: Callable[[Action, Outcome], None],
    ) -> None:
        self._machine = machine
        self._dry_run = dry_run
        self._stopping = stopping
        self._observe = observe

    def look(self) -> NodeReading:
        """Return what the workers published last."""
        return self._machine.look()

    def measure(self) -> NodeReading:
        """Measure now."""
        return self._machine.measure()

    def carry_out(self, action: Action, *, order_id: str) -> Outcome:
        """Do one action; whatever goes wrong is in the outcome."""
        if self._stopping.is_set():
            return _not_done("the actuator is stopping")
        outcome = _not_done("dry run") if self._dry_run else self._act(action, order_id)
        self._observe(action, outcome)
        _log.info(
            "action: order=%s app=%s mechanism=%s packages=%s workers=%d reclaimed_bytes=%d skipped=%r errors=%r",
            order_id,
            action.app.name,
            action.mechanism,
            ",".join(action.packages),
            outcome.workers,
            outcome.reclaimed_bytes,
            outcome.skipped,
            outcome.errors,
        )
        return outcome

    def _act(self, action: Action, order_id: str) -> Outcome:
        started = time.monotonic()
        try:
            return self._machine.carry_out(action, order_id=order_id)
        except Exception as error:  # noqa: BLE001 -- one worker's nonsense must not keep the others from being relieved
            _log.exception("action failed: order=%s", order_id)
            return Outcome(0, 0, (), (f"{type(error).__name__}: {error}",), time.monotonic() - started)


def _not_done(reason: str) -> Outcome:
    return Outcome(0, 0, (reason,), (), 0.0)
