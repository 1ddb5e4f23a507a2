"""This process as a managed worker: what its agent publishes of it, and how it carries out orders."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mempressure.act import self_check
from mempressure.act.supervisors import Lookout
from mempressure.act.supervisors.base import BackgroundWork, reason_not_to_end
from mempressure.config.configuration import Configuration
from mempressure.measure.cgroup import own_cgroup
from mempressure.measure.reading import CLOCK_SET_BACK_SECONDS, UNKNOWN
from mempressure.state.records import PackageState, WorkerState
from mempressure.state.siblings import Siblings
from mempressure.worker.agent import Agent
from mempressure.worker.isolated_states import isolated_states
from mempressure.worker.registry import Packages
from mempressure.worker.sampler import WorkerSampler

if TYPE_CHECKING:
    from mempressure.act.orders import Order
    from mempressure.act.trim import PressureCallbacks
    from mempressure.measure.growth import ProcessGrowth
    from mempressure.packages.tracking import PackageTracker
    from mempressure.verdicts.known import KnownVerdicts

_log = logging.getLogger(__name__)

TRIM_GROWTH_BYTES = 1 << 20
"""A trim by which private memory has grown by more than this, by unsharing pages, is not done again."""


class ManagedWorker:
    """Publishes a loader's packages and carries out the orders that arrive for them.

    Args:
        configuration: names the app, its budget and the runtime directory.
        packages: the declared packages.
        callbacks: returns what the application wants called under pressure, if it wants anything.
        background: what the application does beside its requests.
        forked: this process was forked by one that had a loader.
        delay_seconds: how long the agent waits before it shows.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        packages: Packages,
        callbacks: "Callable[[], PressureCallbacks | None]",
        background: BackgroundWork,
        forked: bool = False,
        delay_seconds: float = 0.0,
    ) -> None:
        self._packages = packages
        self._callbacks = callbacks
        self._background = background
        self._longest_request = configuration.mempressure_longest_request
        self._lookout = Lookout(
            neighbours=Siblings(configuration, baseline=lambda: self._sampler.baseline_bytes),
            at_serving=self._begin,
            at_end=self._leave,
            forked=forked,
        )
        self._sampler = WorkerSampler(configuration, lookout=self._lookout, cgroup=own_cgroup(), clock=time.time)
        self._cache_directory = configuration.cache_directory
        self._verdicts: KnownVerdicts | None = None
        self._growth: ProcessGrowth | None = None
        self._trim_stopped = ""
        self._unsupported: dict[str, str] | None = None
        self._retiring = False
        self._agent = Agent(
            self,
            runtime=configuration.runtime_directory,
            trusted_uids=configuration.mempressure_trusted_uids,
            delay_seconds=delay_seconds,
        )

    def start(self) -> bool:
        """Start the agent; return False, the reason being logged, where it cannot run."""
        self._lookout.look()  # in the main thread: Celery is to be told before its loop begins
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
        if self._lookout.supervises:
            return None
        self._lookout.look().settle()
        unsupported = dict(self.unsupported)
        tracker = self._tracker
        if tracker is not None:
            tracker.tick()
            tracker.attribute(now=time.monotonic())
        hosts = self._packages.process_pids()
        worker, memory = self._sampler.sample(hosts, thorough=thorough)
        for name, size in memory.items():
            self._packages.isolated[name].cost_bytes = size
        self._note_growth(worker.sampled, hosts, memory)
        # Of the same tracker: one that is declared meanwhile has not been told yet what cannot work here.
        worker.packages = [] if tracker is None else tracker.states()
        worker.packages += isolated_states(self._packages.isolated, memory, growth=self.growth)
        self._add_verdicts(worker.packages)
        worker.serving = worker.serving and not self._retiring
        worker.trim_refused = self._trim_refused()
        if worker.trim_refused:  # whoever found that out, and whenever
            unsupported["trim"] = worker.trim_refused
        worker.unsupported = unsupported
        callbacks = self._callbacks()
        worker.callback_failures = 0.0 if callbacks is None else float(callbacks.failures)
        hosted = list(self._packages.isolated.values())
        worker.process_deaths = float(sum(package.process_deaths for package in hosted))
        worker.process_start_failures = float(sum(package.start_failures for package in hosted))
        worker.recycle_refused = worker.recycle_refused or self._reason_not_to_end()
        return worker

    @property
    def growth(self) -> dict[str, float]:
        """Return by how many bytes per second each package's own process grows."""
        return {} if self._growth is None else self._growth.rates()

    def _add_verdicts(self, packages: list[PackageState]) -> None:
        if not packages:
            return
        if self._verdicts is None:
            from mempressure.verdicts.known import KnownVerdicts  # only paid for where there is a package

            self._verdicts = KnownVerdicts(self._cache_directory)
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
        if order.op == "stop":
            return self._stop(order), None
        if order.op == "trim":
            return self._trim(order), None
        return self._recycle(order)

    def _stop(self, order: "Order") -> dict[str, Any]:
        package = self._packages.isolated.get(order.package)
        if package is None:
            raise self._packages.unknown(order.package)
        idle_for = (order.idle_for or {}).get(order.package)
        reclaimed, reason = package.unload(idle_for=idle_for)
        return {"reclaimed_bytes": reclaimed, "skipped": reason}

    def _trim(self, order: "Order") -> dict[str, Any]:
        # Looked at once more: the application may have frozen its objects, or forked, since it started.
        refused = self._trim_refused() or self_check.trim(self._system())
        if refused:
            return {"reclaimed_bytes": 0, "skipped": refused}
        from mempressure.act.trim import trim  # only paid for where one was ordered

        trimmed = trim(self._callbacks(), level=order.level, call="on_pressure" not in self.unsupported)
        if trimmed.unshared > TRIM_GROWTH_BYTES:
            self._trim_stopped = f"trimming unshared {trimmed.unshared} bytes of its pages"
        return {"reclaimed_bytes": max(0, trimmed.freed), "skipped": None, "problems": trimmed.problems}

    def _trim_refused(self) -> str:
        return self.unsupported.get("trim") or self._trim_stopped or self._lookout.look().trim_refused

    @property
    def unsupported(self) -> dict[str, str]:
        """Return what cannot work in this process and why; looked at once, and turned off with that."""
        if self._unsupported is None:
            self._unsupported = self_check.unsupported(self._system())
            for feature, reason in self._unsupported.items():
                _log.warning("not supported here: feature=%s reason=%r", feature, reason)
            self._sampler.measures_memory = "process_memory" not in self._unsupported
        return self._unsupported

    def _system(self) -> self_check.System:
        tracker = self._packages.tracker
        return self_check.own_system(inherited=() if tracker is None else tracker.inherited)

    @property
    def _tracker(self) -> "PackageTracker | None":
        """Return the tracker, told what cannot work here: it may be younger than the self-check."""
        tracker = self._packages.tracker
        if tracker is not None:
            tracker.accessed_bit = "accessed_bit" not in self.unsupported
        return tracker

    def _recycle(self, order: "Order") -> tuple[dict[str, Any], Callable[[], None] | None]:
        reason = self._reason_not_to_recycle(order)
        if reason is not None:
            return {"reclaimed_bytes": 0, "skipped": reason}, None
        self._retiring = True
        return {"reclaimed_bytes": 0, "skipped": None}, self._retire

    def _retire(self) -> None:
        self._retiring = self._lookout.look().retire()
        if not self._retiring:
            _log.warning("not recycled: no successor came up in time, and this worker goes on: pid=%d", os.getpid())

    def _begin(self) -> None:
        self._sampler.note_baseline()
        self.publish_soon()  # whoever waits for a successor waits for this

    def _leave(self) -> None:
        self.stop()
        self._packages.close_processes()

    def _reason_not_to_end(self) -> str:
        supervisor = self._lookout.look()
        return reason_not_to_end(
            work=self._background.names(),
            grace=supervisor.grace,
            longest_request=self._longest_request,
            running=supervisor.running_seconds(),
        )

    def _reason_not_to_recycle(self, order: "Order") -> str | None:
        supervisor = self._lookout.look()
        if supervisor.recycle_refused:
            return supervisor.recycle_refused
        if not supervisor.kind:
            return "no supervisor would replace it"
        if self._retiring or not supervisor.serving:
            return "is not serving yet, or is ending already"
        return self._reason_not_to_end() or self._reason_to_keep(order)

    def _reason_to_keep(self, order: "Order") -> str | None:
        tracker = self._tracker
        if tracker is None:
            return None
        tracker.tick()  # a use since the last tick counts
        now = time.time()
        for package in tracker.states():
            if not package.loaded or order.idle_for is None:
                continue
            if package.name not in order.idle_for:
                return f"{package.name} was loaded meanwhile"
            if package.last_used == UNKNOWN:
                return f"nobody knows for how long {package.name} has been idle"
            idle = now - package.last_used
            if package.active_calls or -CLOCK_SET_BACK_SECONDS < idle < order.idle_for[package.name]:
                return f"{package.name} was used {max(0.0, idle):.1f} s ago"
        return None
