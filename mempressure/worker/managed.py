"""This process as a managed worker: what its agent publishes of it, and how it carries out orders."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mempressure.act import self_check
from mempressure.act.supervisors import Supervisor, SupervisorFinder
from mempressure.act.supervisors.base import reason_not_to_end
from mempressure.config.configuration import Configuration
from mempressure.errors import UnknownPackageError
from mempressure.measure.cgroup import own_cgroup
from mempressure.state.records import PackageState, WorkerState
from mempressure.worker.agent import Agent
from mempressure.worker.registry import Packages
from mempressure.worker.sampler import WorkerSampler

if TYPE_CHECKING:
    from mempressure.act.orders import Order
    from mempressure.act.trim import PressureCallbacks
    from mempressure.isolation.package import IsolatedPackage
    from mempressure.measure.growth import ProcessGrowth
    from mempressure.packages.tracking import PackageTracker
    from mempressure.state.siblings import Siblings
    from mempressure.verdicts.known import KnownVerdicts
    from mempressure.worker.background_work import BackgroundWork

_log = logging.getLogger(__name__)


class ManagedWorker:
    """Publishes a loader's packages and carries out the orders that arrive for them.

    Args:
        configuration: names the app, its budget and the runtime directory.
        packages: the declared packages.
        callbacks: returns what the application wants called under pressure, if it wants anything.
        background: returns what the application does beside its requests, if it declared anything.
        forked: this process was forked by one that had a loader.
        delay_seconds: how long the agent waits before it publishes.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        packages: Packages,
        callbacks: "Callable[[], PressureCallbacks | None]",
        background: "Callable[[], BackgroundWork | None]",
        forked: bool = False,
        delay_seconds: float = 0.0,
    ) -> None:
        self._packages = packages
        self._find_callbacks = callbacks
        self._background = background
        self._longest_request = configuration.longest_request
        self._finder = SupervisorFinder(
            directory=configuration.runtime_directory / str(os.geteuid()),
            siblings=self._siblings,
            at_serving=self._begin,
            at_end=self._leave,
            forked=forked,
        )
        self._sampler = WorkerSampler(configuration, finder=self._finder, cgroup=own_cgroup(), clock=time.time)
        self._configuration = configuration
        self._verdicts: KnownVerdicts | None = None
        self._growth: ProcessGrowth | None = None
        self.trim_stopped = ""
        self._unsupported: dict[str, str] | None = None
        self._checked_tracker = False
        self.retiring = False
        self._agent = Agent(
            self,
            runtime=configuration.runtime_directory,
            trusted_uids=configuration.trusted_uids,
            delay_seconds=delay_seconds,
        )

    def start(self) -> bool:
        """Start the agent; return False, the reason being logged, where it cannot run."""
        self._finder.find()  # in the main thread: Celery needs it before its loop begins
        return self._agent.start()

    def stop(self) -> None:
        """Stop the agent and remove what it published."""
        self._agent.stop()

    def forget(self) -> None:
        """Close what a forked child inherited of its parent's agent."""
        self._agent.forget()

    def publish_soon(self) -> None:
        """Have the state published now: something was loaded or unloaded."""
        self._agent.publish_soon()

    def sample(self, *, thorough: bool) -> WorkerState | None:
        """Measure this process and its package processes; see `mempressure.worker.agent`."""
        if self._finder.supervises:
            return None
        self._finder.find().settle()
        unsupported = dict(self.unsupported)
        tracker = self.tracker
        if tracker is not None:
            tracker.tick()
            tracker.update_attribution(now=time.monotonic())
        pids = self._packages.process_pids()
        worker, memory = self._sampler.sample(pids, thorough=thorough)
        for name, size in memory.items():
            self._packages.isolated[name].cost_bytes = size
        self._note_growth(worker.sampled, pids, memory)
        # Of the same tracker: one that is made meanwhile does not know yet what cannot work here.
        worker.packages = [] if tracker is None else tracker.states()
        if self._packages.isolated:
            from mempressure.worker.isolated_states import isolated_states  # only paid for where there is one

            worker.packages += isolated_states(self._packages.isolated, memory, growth=self.growth)
        self._add_verdicts(worker.packages)
        worker.serving = worker.serving and not self.retiring
        worker.trim_refused = self.trim_refused()
        if worker.trim_refused:  # whichever check set it
            unsupported["trim"] = worker.trim_refused
        worker.unsupported = unsupported
        callbacks = self.callbacks
        worker.callback_failures = 0.0 if callbacks is None else float(callbacks.failures)
        isolated = list(self._packages.isolated.values())
        worker.process_deaths = float(sum(package.process_deaths for package in isolated))
        worker.process_start_failures = float(sum(package.start_failures for package in isolated))
        worker.recycle_refused = worker.recycle_refused or self.reason_not_to_end()
        return worker

    @property
    def isolated(self) -> "Mapping[str, IsolatedPackage]":
        """Return the isolated packages by name."""
        return self._packages.isolated

    @property
    def callbacks(self) -> "PressureCallbacks | None":
        """Return the application's `on_pressure` callbacks, if it has any."""
        return self._find_callbacks()

    def supervisor(self) -> Supervisor:
        """Return what replaces this worker when it ends."""
        return self._finder.find()

    def unknown(self, name: str) -> UnknownPackageError:
        """Return the error for a package that is not declared in this process."""
        return self._packages.unknown(name)

    @property
    def growth(self) -> dict[str, float]:
        """Return by how many bytes per second each package's own process grows."""
        return {} if self._growth is None else self._growth.rates()

    def _add_verdicts(self, packages: list[PackageState]) -> None:
        if not packages:
            return
        if self._verdicts is None:
            from mempressure.verdicts.known import KnownVerdicts  # only paid for where there is a package

            self._verdicts = KnownVerdicts(self._configuration.cache_directory)
        self._verdicts.refresh()
        for package in packages:
            package.verdict = self._verdicts.mechanism(package.name)

    def _note_growth(self, now: float, pids: Mapping[str, int | None], memory: Mapping[str, int]) -> None:
        if memory and self._growth is None:
            from mempressure.measure.growth import ProcessGrowth  # only paid for where there is a package process

            self._growth = ProcessGrowth()
        if self._growth is not None:
            self._growth.add(now, pids, memory)

    def carry_out(self, order: "Order") -> tuple[dict[str, Any], Callable[[], None] | None]:
        """Carry out an order; see `mempressure.worker.agent`."""
        from mempressure.act.mechanisms import mechanism  # only paid for where something was ordered

        return mechanism(order.op).carry_out(self, order)

    def trim_refused(self) -> str:
        """Return why this worker must not be trimmed; empty where it may be."""
        return self.unsupported.get("trim") or self.trim_stopped or self._finder.find().trim_refused

    @property
    def unsupported(self) -> dict[str, str]:
        """Return what cannot work in this process and why; checked at the start, and with the first tracked package."""
        known, tracks = self._unsupported, self._packages.tracker is not None
        if known is not None and self._checked_tracker is tracks:
            return known
        found = self_check.unsupported(self.system())
        for feature, reason in found.items():
            if known is None or feature not in known:
                _log.warning("not supported here: feature=%s reason=%r", feature, reason)
        self._sampler.measures_memory = "process_memory" not in found
        self._unsupported, self._checked_tracker = found, tracks
        return found

    def system(self) -> self_check.System:
        """Return the current input of the self-check."""
        tracker = self._packages.tracker
        return self_check.own_system(inherited=None if tracker is None else tracker.inherited)

    @property
    def tracker(self) -> "PackageTracker | None":
        """Return the tracker of packages imported here, with what the self-check turned off in it."""
        tracker = self._packages.tracker
        if tracker is not None:
            tracker.accessed_bit = "accessed_bit" not in self.unsupported
        return tracker

    def _siblings(self) -> "Siblings":
        from mempressure.state.siblings import Siblings  # paid for once the worker is to be replaced

        return Siblings(self._configuration, baseline=self._sampler.baseline_bytes)

    def _begin(self) -> None:
        self._sampler.note_baseline()
        self.publish_soon()  # a worker that waits for its successor waits for this

    def _leave(self) -> None:
        self.stop()
        self._packages.close_processes()

    def reason_not_to_end(self) -> str:
        """Return why this worker must not end now, whatever its packages; empty where it may."""
        supervisor, work = self._finder.find(), self._background()
        return reason_not_to_end(
            work=() if work is None else work.names(),
            grace=supervisor.grace,
            longest_request=self._longest_request,
            running=supervisor.running_seconds(),
        )
