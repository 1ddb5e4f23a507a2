"""Bootstrap of the library's threads in this process: the agent's, and the control loop's if the application asks."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from mempressure.act.supervisors import is_supervisor, postpone_start
from mempressure.config.configuration import Configuration
from mempressure.worker.agent import FORKED_DELAY_SECONDS
from mempressure.worker.managed import ManagedWorker

if TYPE_CHECKING:
    from mempressure.act.trim import PressureCallbacks
    from mempressure.control.process_monitor import ProcessMonitor
    from mempressure.control.standalone import LeadingLoop
    from mempressure.worker.background_work import BackgroundWork
    from mempressure.worker.registry import Packages


class Bootstrap:
    """Starts the threads where this process is a worker, again in each forked child, and ends them.

    Args:
        configuration: of the process.
        packages: returns the declared packages, if any was declared.
        callbacks: returns what the application wants called under pressure, if it wants anything.
        background: returns what the application does beside its requests, if it declared anything.
        watch: returns the memory monitor of the process, with its thresholds.

    Attributes:
        worker: what the agent publishes and passes orders to; None where no agent runs.
        loop: the control loop; None where it does not run here.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        packages: "Callable[[], Packages | None]",
        callbacks: "Callable[[], PressureCallbacks | None]",
        background: "Callable[[], BackgroundWork | None]",
        watch: "Callable[[], ProcessMonitor]",
    ) -> None:
        self._configuration = configuration
        self._packages = packages
        self._callbacks = callbacks
        self._background = background
        self._watch = watch
        self._lock = threading.Lock()
        self._loop_wanted = False
        self.worker: ManagedWorker | None = None
        self.loop: LeadingLoop | None = None

    def start_agent(self, *, forked: bool = False) -> None:
        """Start the agent, here or, where this process is a supervisor's, in its workers when they are forked."""
        if not forked and (is_supervisor() or postpone_start(self.start_agent)):
            return
        try:
            worker = ManagedWorker(
                self._configuration,
                packages=self._packages,
                callbacks=self._callbacks,
                background=self._background,
                forked=forked,
                delay_seconds=FORKED_DELAY_SECONDS if forked else 0.0,
            )
        except ProcessLookupError as error:  # no /proc, as on macOS: processes cannot be identified
            import logging  # deferred: most workers never come here

            words = "agent not started, this worker is not managed: reason=%r"
            logging.getLogger(__name__).error(words, str(error))  # noqa: TRY400 -- the reason is whole without a trace
            return
        if worker.start():
            self.worker = worker

    def start_loop(self) -> None:
        """Start the control loop, here or, as with the agent, in this process' workers; once."""
        self._loop_wanted = True
        self._start_loop()

    def stop_loop(self) -> None:
        """End the control loop; no forked child begins one either."""
        self._loop_wanted = False
        with self._lock:
            loop, self.loop = self.loop, None
        if loop is not None:
            loop.stop()

    def stop(self) -> None:
        """End the control loop and the agent."""
        self.stop_loop()
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    def after_fork(self) -> None:
        """Begin anew in a forked child, whose parent's threads are not here."""
        self._lock = threading.Lock()
        if self.worker is not None:
            self.worker.forget()
            self.worker = None
        if self.loop is not None:
            self.loop.forget()
            self.loop = None
        self.start_agent(forked=True)
        if self._loop_wanted:
            self._start_loop(forked=True)

    def _start_loop(self, *, forked: bool = False) -> None:
        if not forked and (is_supervisor() or postpone_start(self._start_loop)):
            return
        from mempressure.control.standalone import LeadingLoop  # paid for where `start` is called

        with self._lock:
            if self.loop is not None or not self._loop_wanted:
                return
            self.loop = LeadingLoop(
                self._configuration,
                monitor=lambda: self._watch().monitor,
                settings=lambda: self._watch().settings(),
                delay_seconds=FORKED_DELAY_SECONDS if forked else 0.0,
            )
        self.loop.start()
