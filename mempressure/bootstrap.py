"""Bootstrap of the agent: started where this process turns out to be a worker, and again in each forked child."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mempressure.act.supervisors import is_supervisor, postpone_start
from mempressure.config.configuration import Configuration
from mempressure.worker.agent import FORKED_DELAY_SECONDS
from mempressure.worker.managed import ManagedWorker

if TYPE_CHECKING:
    from mempressure.act.trim import PressureCallbacks
    from mempressure.worker.background_work import BackgroundWork
    from mempressure.worker.registry import Packages


class Bootstrap:
    """Starts the agent where this process is a worker, again in each forked child, and ends it.

    Args:
        configuration: of the process.
        packages: returns the declared packages, if any was declared.
        callbacks: returns what the application wants called under pressure, if it wants anything.
        background: returns what the application does beside its requests, if it declared anything.

    Attributes:
        worker: what the agent publishes and passes orders to; None where no agent runs.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        packages: "Callable[[], Packages | None]",
        callbacks: "Callable[[], PressureCallbacks | None]",
        background: "Callable[[], BackgroundWork | None]",
    ) -> None:
        self._configuration = configuration
        self._packages = packages
        self._callbacks = callbacks
        self._background = background
        self.worker: ManagedWorker | None = None

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

    def stop(self) -> None:
        """End the agent."""
        if self.worker is not None:
            self.worker.agent.stop()
            self.worker = None

    def after_fork(self) -> None:
        """Begin anew in a forked child, whose parent's thread is not here."""
        if self.worker is not None:
            self.worker.agent.forget()
            self.worker = None
        self.start_agent(forked=True)
