"""The control loop that an application started: in its workers, and again in each process that they fork."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from mempressure.act.supervisors import is_supervisor, postpone_start
from mempressure.config.configuration import Configuration
from mempressure.control.standalone import LeadingLoop
from mempressure.worker.agent import FORKED_DELAY_SECONDS

if TYPE_CHECKING:
    from mempressure.control.process_monitor import ProcessMonitor


class ApplicationLoop:
    """Starts the loop where this process is a worker, and ends it.

    Args:
        configuration: of the process.
        monitor: returns the memory monitor of the process, with its thresholds.
        has_agent: returns whether an agent runs here, whose ticks call `contend`.

    Attributes:
        loop: the loop; None where it does not run here.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        monitor: "Callable[[], ProcessMonitor]",
        has_agent: Callable[[], bool],
    ) -> None:
        self._configuration = configuration
        self._monitor = monitor
        self._has_agent = has_agent
        self._lock = threading.Lock()
        self._wanted = False
        self._in_workers = False
        """Whether this process is a supervisor, which starts it in its workers only."""
        self.loop: LeadingLoop | None = None

    def start(self) -> None:
        """Start the loop, here or, where this process is a supervisor's, in its workers; once."""
        self._wanted = True
        self._start()

    def stop(self) -> None:
        """End the loop; no forked child begins one either."""
        self._wanted = False
        with self._lock:
            loop, self.loop = self.loop, None
        if loop is not None:
            loop.stop()

    def before_fork(self) -> None:
        """Load, in a supervisor, what the worker that leads needs: 4 MiB of its own else, 1.5 MiB for all so."""
        if self._in_workers and self._wanted:
            import mempressure.control.actuator_probe
            import mempressure.control.lead
            import mempressure.control.process_monitor  # noqa: F401 -- as the leading process does
            from mempressure.act.mechanisms import mechanisms

            mechanisms()

    def after_fork(self) -> None:
        """Begin anew in a forked child, whose parent's thread is not here."""
        self._lock = threading.Lock()
        if self.loop is not None:
            self.loop.forget()
            self.loop = None
        if self._wanted:
            self._start(forked=True)

    def _start(self, *, forked: bool = False) -> None:
        if not forked and (is_supervisor() or postpone_start(self._start)):
            self._in_workers = True
            return
        with self._lock:
            if self.loop is not None or not self._wanted:
                return
            self.loop = LeadingLoop(
                self._configuration,
                monitor=lambda: self._monitor().monitor,
                settings=lambda: self._monitor().settings(),
                delay_seconds=FORKED_DELAY_SECONDS if forked else 0.0,
            )
        # A thread that waits takes 0.4 MiB of a worker that shares the rest of its memory.
        if not self._has_agent():
            self.loop.start()

    def contend(self) -> None:
        """Run the loop where this process may lead; called by the agent at each tick, in its thread."""
        if (loop := self.loop) is not None:
            loop.contend()
