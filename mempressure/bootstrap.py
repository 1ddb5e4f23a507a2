"""Bootstrap of the agent: started where this process turns out to be a worker, and again in each forked child."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mempressure.act.supervisors import is_supervisor, postpone_start
from mempressure.config.configuration import Configuration
from mempressure.worker.agent import FORKED_DELAY_SECONDS
from mempressure.worker.managed import ManagedWorker

if TYPE_CHECKING:
    from mempressure.act.callbacks import PressureCallbacks
    from mempressure.worker.background_work import BackgroundWork
    from mempressure.worker.registry import Packages


class Bootstrap:
    """Starts the agent where this process is a worker, again in each forked child, and ends it.

    Args:
        configuration: of the process.
        packages: returns the declared packages, if any was declared.
        callbacks: returns what the application wants called under pressure, if it wants anything.
        background: returns what the application does beside its requests, if it declared anything.
        at_tick: called once a second by the agent, in its thread.

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
        at_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._configuration = configuration
        self._packages = packages
        self._callbacks = callbacks
        self._background = background
        self._at_tick = at_tick
        self.worker: ManagedWorker | None = None
        self._prepared: ManagedWorker | None = None
        """What a supervisor's workers begin with: made once, before they are forked, it is shared by all of them."""

    def start_agent(self, *, forked: bool = False) -> None:
        """Start the agent, here or, where this process is a supervisor's, in its workers when they are forked."""
        if not forked and (is_supervisor() or postpone_start(self.start_agent)):
            if self._prepared is None:
                self._prepared = self._made(forked=True)
            return
        if forked and self._prepared is not None:
            worker, self._prepared = self._prepared, None
            worker.begin_in_child()
        elif (made := self._made(forked=forked)) is not None:
            worker = made
        else:
            return
        if worker.start():
            self.worker = worker

    def _made(self, *, forked: bool) -> ManagedWorker | None:
        """Return this process as a worker; None, the reason being logged, where processes cannot be identified."""
        try:
            return ManagedWorker(
                self._configuration,
                packages=self._packages,
                callbacks=self._callbacks,
                background=self._background,
                at_tick=self._at_tick,
                forked=forked,
                delay_seconds=FORKED_DELAY_SECONDS if forked else 0.0,
            )
        except ProcessLookupError as error:  # no /proc, as on macOS
            import logging  # deferred: most workers never come here

            words = "agent not started, this worker is not managed: reason=%r"
            logging.getLogger(__name__).error(words, str(error))  # noqa: TRY400 -- the reason is whole without a trace
            return None

    def stop(self) -> None:
        """End the agent."""
        if self.worker is not None:
            self.worker.agent.stop()
            self.worker = None

    def before_fork(self) -> None:
        """Prepare, in a supervisor, what its workers need."""
        if self._prepared is not None:
            self._prepared.prepare()

    def after_fork(self) -> None:
        """Begin anew in a forked child, whose parent's thread is not here."""
        if self.worker is not None:
            self.worker.agent.forget()
            self.worker = None
        self.start_agent(forked=True)
