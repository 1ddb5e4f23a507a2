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
from typing import TYPE_CHECKING

from mempressure.config.configuration import Configuration
from mempressure.config.lock_file import LockFile
from mempressure.config.paths import own_runtime_directory
from mempressure.errors import MempressureError
from mempressure.forks import in_child
from mempressure.log_once import LogOnce

if TYPE_CHECKING:
    from mempressure.config.runtime_settings import Settings
    from mempressure.control.lead import Lead
    from mempressure.control.monitor import MemoryMonitor

_log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
STOP_SECONDS = 5.0
"""How long stopping waits for the action that runs; it is then finished while the application goes on."""
LOCK_NAME = "control.lock"

_FOLLOWS = "follows: another process of uid %d leads"
_STANDS_BY = "stands by: the actuator at %s acts"
_LEADS = "leads: no actuator answers at %s"

_loading = threading.Lock()
"""Held while modules are loaded in this thread, and by forks: a child would wait for ever for a module half loaded."""


def _before_fork() -> None:
    _loading.acquire()


def _after_fork_in_parent() -> None:
    _loading.release()


def _after_fork_in_child() -> None:
    global _loading  # noqa: PLW0603 -- the inherited one is held
    _loading = threading.Lock()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
in_child(_after_fork_in_child)


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
        monitor: "Callable[[], MemoryMonitor]",
        settings: "Callable[[], Settings]",
        delay_seconds: float = 0.0,
    ) -> None:
        self._configuration = configuration
        self._url: str = configuration.actuator_url
        self._monitor = monitor
        self._settings = settings
        self._delay = delay_seconds
        self._lock: LockFile | None = None
        self._stopping = threading.Event()
        self._lead: Lead | None = None
        self._state = ""
        self._once = LogOnce(__name__)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        thread = threading.Thread(target=self._run, name="mempressure-control", daemon=True)
        thread.start()
        self._thread = thread  # once it runs: what stops it waits for its end

    def contend(self) -> None:
        """Start the thread where this process may lead; called again and again, so that waiting needs no thread."""
        if not self._stopping.is_set() and self._thread is None:
            self._survive(self._contend)

    def _contend(self) -> None:
        own_runtime_directory(self._configuration.runtime_directory)
        if self._held_lock().take():
            self.start()
        else:
            self._enter_state(_FOLLOWS, os.geteuid())

    def stop(self) -> None:
        """Begin no other action, and leave the lead to another process once the one that runs is done."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)

    def _held_lock(self) -> LockFile:
        # Of the user that this process has by now: a worker that root's server forked changes it.
        path = self._configuration.runtime_directory / str(os.geteuid()) / LOCK_NAME
        if self._lock is None or self._lock.path != path:
            if self._lock is not None:
                self._lock.release()
                self._lead = None
            self._lock = LockFile(path)
        return self._lock

    def forget(self) -> None:
        """In a forked child, leave the lead to the parent."""
        if self._lock is not None:
            self._lock.forget()

    def turn(self) -> None:
        """Open a cycle for each scope that is under pressure and due, where this process leads and no actuator answers.

        Raises:
            MempressureError: the node cannot be read.
            OSError: the lock file cannot be used.
        """
        own_runtime_directory(self._configuration.runtime_directory)
        if not self._held_lock().take():
            self._enter_state(_FOLLOWS, os.geteuid())
        elif self._actuator_answers():
            self._enter_state(_STANDS_BY, self._url)
        else:
            lead = self._leading()
            self._enter_state(_LEADS, self._url)
            lead.turn()

    def _leading(self) -> "Lead":
        if self._lead is None:
            with _loading:
                from mempressure.control.lead import Lead  # 1.5 MB that a process which waits need not hold

            self._lead = Lead(
                self._configuration, monitor=self._monitor, settings=self._settings, may_act=self._may_act
            )
        return self._lead

    def _actuator_answers(self) -> bool:
        from mempressure.control.actuator_probe import answers  # only the process that would lead asks

        return answers(self._url)

    def _may_act(self) -> bool:
        return not self._stopping.is_set() and not self._actuator_answers()

    def _enter_state(self, state: str, *arguments: object) -> None:
        if state != self._state:
            self._state = state
            if self._lead is not None:
                self._lead.begin()
            _log.info("control loop of this process " + state, *arguments)

    def _run(self) -> None:
        try:
            self._stopping.wait(self._delay)
            while not self._stopping.is_set():
                began = time.monotonic()
                self._survive(self.turn)
                self._stopping.wait(max(0.0, began + TICK_SECONDS - time.monotonic()))
        finally:
            self._held_lock().release()

    def _survive(self, step: Callable[[], None]) -> None:
        """Do a step; whatever it raises is logged, once while it stays the same, and the next step comes."""
        try:
            step()
            self._once.over("turn")
        except Exception as error:  # noqa: BLE001 -- no failure of one turn may end the loop
            expected = isinstance(error, MempressureError | OSError)
            words = "turn of the control loop failed, the next one comes: reason=%s"
            self._once.error("turn", words, error, exc_info=None if expected else error)
