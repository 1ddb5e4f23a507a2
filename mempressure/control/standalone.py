"""The control loop inside an application, where the node has no actuator.

Of a user's processes in which it was started one leads: the process that holds the lock file in the runtime directory
runs the loop, for all of that user's applications. While an actuator answers it stands by; the others wait for the
lock.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from mempressure.act.executor import Executor, Outcome
from mempressure.config.configuration import Configuration
from mempressure.config.lock_file import LockFile
from mempressure.config.paths import own_runtime_directory
from mempressure.config.runtime_settings import Settings
from mempressure.control.actuator_probe import answers
from mempressure.control.loop import ControlLoop
from mempressure.control.monitor import MemoryMonitor
from mempressure.control.records import Cycle, Pressure, Scope
from mempressure.control.rules import rules
from mempressure.decide.eligibility import Rules
from mempressure.decide.plan import Action
from mempressure.errors import MempressureError
from mempressure.log_once import LogOnce
from mempressure.state.node import NodeReading
from mempressure.state.node_reader import read_node

_log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
STOP_SECONDS = 5.0
"""How long stopping waits for the action that runs; it is then finished while the application goes on."""
LOCK_NAME = "control.lock"

_FOLLOWS = "follows: another process of uid %d leads"
_STANDS_BY = "stands by: the actuator at %s acts"
_LEADS = "leads: no actuator answers at %s"


class LeadingLoop:
    """Runs the control loop in a thread of this process, for as long as it leads.

    Args:
        configuration: names the runtime directory and the actuator, and gives the operator's rules.
        monitor: returns the memory monitor, whose thresholds are those that hold in this process.
        settings: returns what people set for the node.
        delay_seconds: how long to wait before the first turn.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        monitor: Callable[[], MemoryMonitor],
        settings: Callable[[], Settings],
        delay_seconds: float = 0.0,
    ) -> None:
        self._configuration = configuration
        self._url: str = configuration.actuator_url
        self._monitor = monitor
        self._settings = settings
        self._delay = delay_seconds
        self._lock = LockFile(configuration.runtime_directory / str(os.geteuid()) / LOCK_NAME)
        self._stopping = threading.Event()
        self._machine = _OwnApps(configuration, may_act=self._may_act)
        self._control = ControlLoop(
            self._machine,
            rules=self._rules,
            record=_log_cycle,
            critical_ratio=configuration.critical_ratio,
        )
        self._held: dict[Scope, float] = {}
        self._state = ""
        self._once = LogOnce(__name__)
        self._thread = threading.Thread(target=self._run, name="mempressure-control", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no other action, and leave the lead to another process once the one that runs is done."""
        self._stopping.set()
        if self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)

    def forget(self) -> None:
        """In a forked child, leave the lead to the parent."""
        self._lock.forget()

    def turn(self) -> None:
        """Open a cycle for each scope that is under pressure and due, where this process leads and no actuator answers.

        Raises:
            MempressureError: the node cannot be read.
            OSError: the lock file cannot be used.
        """
        own_runtime_directory(self._configuration.runtime_directory)
        if not self._lock.take():
            self._enter_state(_FOLLOWS, os.geteuid())
        elif answers(self._url):
            self._enter_state(_STANDS_BY, self._url)
        else:
            self._enter_state(_LEADS, self._url)
            self._lead()

    def _lead(self) -> None:
        observation = self._monitor().observe(self._machine.look())
        self._held = self._control.held_since(observation, self._held)
        for (scope, app), since in sorted(self._held.items(), key=_host_first):
            if not self._stopping.is_set():
                self._control.run([Pressure(scope, app, "autonomous", since)])

    def _rules(self) -> Rules:
        return rules(self._configuration, self._settings(), self._monitor().thresholds)

    def _may_act(self) -> bool:
        return not self._stopping.is_set() and not answers(self._url)

    def _enter_state(self, state: str, *arguments: object) -> None:
        if state != self._state:
            self._state = state
            self._held = {}
            _log.info("control loop of this process " + state, *arguments)

    def _run(self) -> None:
        try:
            self._stopping.wait(self._delay)
            while not self._stopping.is_set():
                began = time.monotonic()
                try:
                    self.turn()
                    self._once.over("turn")
                except Exception as error:  # noqa: BLE001 -- no failure of one turn may end the loop
                    expected = isinstance(error, MempressureError | OSError)
                    words = "turn of the control loop failed, the next one comes: reason=%s"
                    self._once.error("turn", words, error, exc_info=None if expected else error)
                self._stopping.wait(max(0.0, began + TICK_SECONDS - time.monotonic()))
        finally:
            self._lock.release()


def _host_first(held: tuple[Scope, float]) -> tuple[bool, str]:
    (scope, app), _ = held
    return scope != "host", app


class _OwnApps:
    """Looks at this user's applications, and acts on them for as long as it may."""

    def __init__(self, configuration: Configuration, *, may_act: Callable[[], bool]) -> None:
        self._runtime = configuration.runtime_directory
        self._may_act = may_act
        self._executor = Executor(self.look)
        self._once = LogOnce(__name__)

    def look(self) -> NodeReading:
        reading = read_node(self._runtime, on_problem=self._skipped)
        # Other users' agents would refuse orders, and root's other users may have a leader of their own.
        own = {name: app for name, app in reading.apps.items() if app.uid == os.geteuid()}
        return replace(reading, apps=own)

    def measure(self) -> NodeReading:
        return self._executor.measure()

    def carry_out(self, action: Action, *, order_id: str) -> Outcome:
        if not self._may_act():
            return Outcome(0, 0, ("another leads by now",), (), 0.0)
        outcome = self._executor.carry_out(action, order_id=order_id)
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

    def _skipped(self, problem: MempressureError) -> None:
        self._once.warning(str(problem), "state ignored: reason=%s", problem)


def _log_cycle(cycle: Cycle) -> None:
    _log.info(
        "cycle: id=%s scope=%s app=%s strategy=%s outcome=%s usage_before=%.4f usage_after=%.4f",
        cycle.id,
        cycle.scope,
        cycle.app,
        cycle.strategy,
        cycle.outcome,
        cycle.usage_before,
        cycle.usage_after,
    )
