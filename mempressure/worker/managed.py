"""This process as a managed worker: what its agent publishes of it, and how it carries out orders."""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from mempressure.act import self_check
from mempressure.act.supervisors import Supervisor, SupervisorFinder
from mempressure.act.supervisors.base import reason_not_to_end
from mempressure.config.configuration import MANAGED, Configuration
from mempressure.measure.cgroup import own_cgroup
from mempressure.state.records import WorkerState, encode
from mempressure.worker.agent import Agent
from mempressure.worker.sampler import WorkerSampler

if TYPE_CHECKING:
    from mempressure.act.callbacks import PressureCallbacks
    from mempressure.act.orders import Order
    from mempressure.errors import UnknownPackageError
    from mempressure.isolation.package import IsolatedPackage
    from mempressure.packages.tracking import PackageTracker
    from mempressure.residents.unit import Unit
    from mempressure.state.app_workers import AppWorkers
    from mempressure.worker.background_work import BackgroundWork
    from mempressure.worker.package_sampler import PackageSampler
    from mempressure.worker.registry import Packages

_log = logging.getLogger(__name__)


class ManagedWorker:
    """Publishes a loader's packages and carries out the orders that arrive for them.

    Args:
        configuration: names the app, its budget and the runtime directory.
        packages: returns the declared packages, if any was declared.
        callbacks: returns what the application wants called under pressure, if it wants anything.
        background: returns what the application does beside its requests, if it declared anything.
        at_tick: called once a second by the agent, in its thread.
        forked: this process was forked by one that had a loader.
        delay_seconds: seconds before the agent creates its socket and state file.

    Attributes:
        agent: publishes this worker.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        packages: "Callable[[], Packages | None]",
        callbacks: "Callable[[], PressureCallbacks | None]",
        background: "Callable[[], BackgroundWork | None]",
        at_tick: Callable[[], None] = lambda: None,
        forked: bool = False,
        delay_seconds: float = 0.0,
    ) -> None:
        self._packages = packages
        self._find_callbacks = callbacks
        self._background = background
        self._longest_request = configuration.longest_request
        self._finder = SupervisorFinder(
            directory=lambda: configuration.runtime_directory / str(os.geteuid()),
            app_workers=self._app_workers,
            at_serving=self._on_serving,
            at_end=self._on_end,
            forked=forked,
        )
        self._sampler = WorkerSampler(configuration, finder=self._finder, cgroup=own_cgroup(), clock=time.time)
        self._configuration = configuration
        self._package_sampler: PackageSampler | None = None
        self.trim_stopped = ""
        self._unsupported: dict[str, str] | None = None
        self._checked_tracker = False
        self._checked_user = -1
        self._trim_checked = False
        self.retiring = False
        self.agent = Agent(
            self,
            runtime=lambda: configuration.runtime_directory,
            trusted_uids=configuration.trusted_uids,
            delay_seconds=delay_seconds,
            may_open=lambda: self._finder.find().has_its_user,
            at_tick=at_tick,
        )

    def prepare(self) -> None:
        """Load and look up, in a supervisor, what its workers need: they share it, and need not look again."""
        import mempressure.state.liveness
        import mempressure.state.reader  # noqa: F401 -- what its agent loads as soon as there is another worker

        encode(self._sampled(thorough=False))
        self.unsupported  # noqa: B018 -- looks, and keeps what it found

    def begin_in_child(self) -> None:
        """Begin in a forked child with what its parent has prepared."""
        self._sampler.begin()
        if "gevent.monkey" in sys.modules or "eventlet" in sys.modules:
            self._unsupported = None  # what they have patched since works otherwise
        elif self._unsupported is not None:
            self._unsupported.pop("trim", None)
            self._trim_checked = False

    def start(self) -> bool:
        """Start the agent; return False, the reason being logged, where it cannot run."""
        self._finder.find()  # in the main thread: Celery needs it before its loop begins
        return self.agent.start()

    def sample(self, *, thorough: bool) -> WorkerState | None:
        """Measure this process and its package processes; see `AgentSubject` in `mempressure.worker.agent`."""
        if self._finder.supervises:
            return None
        self._finder.find().settle()
        unsupported = dict(self.unsupported)
        worker = self._sampled(thorough=thorough)
        worker.serving = worker.serving and not self.retiring
        worker.trim_refused = self.trim_refused()
        if worker.trim_refused:  # found by the self-check, after an earlier trim, or by the server
            unsupported["trim"] = worker.trim_refused
        worker.unsupported = unsupported
        if (callbacks := self.callbacks) is not None:
            worker.callbacks, worker.callbacks_from = float(len(callbacks)), callbacks.lowest_level
            worker.callback_failures = float(callbacks.failures)
        worker.recycle_refused = worker.recycle_refused or self.reason_not_to_end()
        return worker

    def carry_out(self, order: "Order") -> tuple[dict[str, Any], Callable[[], None] | None]:
        """Carry out an order; see `AgentSubject` in `mempressure.worker.agent`."""
        from mempressure.act.mechanisms import mechanism  # only paid for where something was ordered

        if os.environ.get(MANAGED) == "dry-run":
            sys.stderr.write(f"mempressure: dry run: {order.op} was ordered of worker {os.getpid()}, and is not done\n")
            return {"reclaimed_bytes": 0, "skipped": "mempressure run --dry-run: nothing is done"}, None
        return mechanism(order.op).carry_out(self, order)

    @property
    def isolated(self) -> "Mapping[str, IsolatedPackage]":
        """Return the isolated packages by name."""
        packages = self._packages()
        return {} if packages is None else packages.isolated

    @property
    def residents(self) -> "Mapping[str, Unit]":
        """Return the residents and caches by name."""
        packages = self._packages()
        return {} if packages is None else packages.residents

    @property
    def callbacks(self) -> "PressureCallbacks | None":
        """Return the application's `on_pressure` callbacks, if it has any."""
        return self._find_callbacks()

    def supervisor(self) -> Supervisor:
        """Return what replaces this worker when it ends."""
        return self._finder.find()

    def unknown_package_error(self, name: str) -> "UnknownPackageError":
        """Return the error for a package that is not declared in this process."""
        from mempressure.worker.registry import unknown_package_error  # only paid for where one was ordered

        return unknown_package_error(name, self._packages())

    @property
    def growth(self) -> dict[str, float]:
        """Return by how many bytes per second each package's own process grows."""
        return {} if self._package_sampler is None else self._package_sampler.growth

    def trim_refused(self) -> str:
        """Return why this worker must not be trimmed; empty where it may be."""
        return self.unsupported.get("trim") or self.trim_stopped or self._finder.find().trim_refused

    @property
    def unsupported(self) -> dict[str, str]:
        """Return what cannot work in this process and why; checked at the start, and with the first tracked package."""
        known, tracks, user = self._unsupported, self._registered_tracker is not None, os.geteuid()
        if known is not None and (self._checked_tracker, self._checked_user) == (tracks, user):
            if not self._trim_checked:  # the rest was found by its parent
                self._trim_checked = True
                if reason := self_check.check_trim(self.system()):
                    known["trim"] = reason
            return known
        self._trim_checked = True
        found = self_check.unsupported(self.system())
        for feature, reason in found.items():
            if known is None or feature not in known:
                _log.warning("not supported here: feature=%s reason=%r", feature, reason)
        self._sampler.measures_memory = "process_memory" not in found
        self._unsupported, self._checked_tracker, self._checked_user = found, tracks, user
        return found

    def system(self) -> self_check.System:
        """Return the current input of the self-check."""
        tracker = self._registered_tracker
        return self_check.own_system(inherited=None if tracker is None else tracker.inherited)

    @property
    def tracker(self) -> "PackageTracker | None":
        """Return the tracker of packages imported here, with what the self-check turned off in it."""
        tracker = self._registered_tracker
        if tracker is not None:
            tracker.accessed_bit = "accessed_bit" not in self.unsupported
        return tracker

    @property
    def _registered_tracker(self) -> "PackageTracker | None":
        packages = self._packages()
        return None if packages is None else packages.tracker

    def _sampled(self, *, thorough: bool) -> WorkerState:
        measure = partial(self._sampler.sample, thorough=thorough)
        packages = self._packages()
        if packages is None:
            return measure({})[0]
        if self._package_sampler is None:
            from mempressure.worker.package_sampler import PackageSampler  # paid with the first declaration

            self._package_sampler = PackageSampler(
                packages, cache_directory=lambda: self._configuration.cache_directory
            )
        return self._package_sampler.sample(measure, tracker=self.tracker)

    def _app_workers(self) -> "AppWorkers":
        from mempressure.state.app_workers import AppWorkers  # paid for once the worker is to be replaced

        return AppWorkers(self._configuration, baseline=self._sampler.baseline_bytes)

    def _on_serving(self) -> None:
        self._sampler.note_baseline()
        if (packages := self._packages()) is not None:
            packages.begin_serving()
        self.agent.publish_soon()  # the executor waits for this state

    def _on_end(self) -> None:
        self.agent.stop()
        if (packages := self._packages()) is not None:
            packages.close_processes()

    def reason_not_to_end(self) -> str:
        """Return why this worker must not end now, whatever its packages; empty where it may."""
        supervisor, work = self._finder.find(), self._background()
        return reason_not_to_end(
            work=() if work is None else work.names(),
            grace=supervisor.grace,
            longest_request=self._longest_request,
            running=supervisor.running_seconds(),
        )
