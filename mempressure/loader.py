"""The lazy loader: what an application declares its heavy packages to.

One loader a process, shared by all its threads. It tracks packages imported in the process, runs functions of isolated
packages in processes of their own, and has an agent that publishes the state and takes orders.
"""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from mempressure.configuration import Configuration, load_configuration
from mempressure.declaration import (
    checked_flag,
    checked_name,
    checked_priority,
    checked_start_timeout,
    checked_timeout,
    imported_already,
)
from mempressure.draining import BackgroundWork
from mempressure.errors import ConfigurationError, HostStartError
from mempressure.state import PackageState
from mempressure.supervisors import is_supervisor, postponed
from mempressure.worker import ManagedWorker, measured_hosts, package_states, unknown_package

if TYPE_CHECKING:
    from mempressure.alerts import AlertDict
    from mempressure.isolation import IsolatedFunction, IsolatedPackage
    from mempressure.leading import LeadingLoop
    from mempressure.monitor import GarbageCollected, MemoryMonitor
    from mempressure.observation import PressureSummary
    from mempressure.reservation import Reservation
    from mempressure.room import Room
    from mempressure.suggestions import SuggestionDict
    from mempressure.thresholds import Thresholds
    from mempressure.thresholds_in_force import ThresholdsInForce
    from mempressure.tracking import PackageTracker
    from mempressure.trim import PressureCallbacks

P = ParamSpec("P")
R = TypeVar("R")

FORKED_GRACE_SECONDS = 0.3
"""How long a forked child's agent waits before it shows: most forks are about to execute another program."""

_MOST_NAME_LENGTH = 100
_HOST_VARIABLE = "MEMPRESSURE_PACKAGE_HOST"


class UnloadResult(NamedTuple):
    """What unloading one package brought: bytes measured, or why it was left alone."""

    package: str
    mechanism: str
    reclaimed_bytes: int
    skipped_reason: str | None = None


class LazyLoader:
    """Loads packages on first use and gives their memory back.

    Args:
        configuration: as `load_configuration` gives it, which is the default.
        with_agent: publish this process' state and take orders.
    """

    def __init__(self, *, configuration: Configuration | None = None, with_agent: bool = True) -> None:
        self._configuration = load_configuration() if configuration is None else configuration
        if with_agent and (observing := sys.modules.get("mempressure.observing")) is not None:
            observing.give_way()  # under `mempressure run`: each use is to be seen by whoever acts on it
        # Inside a package host the same declarations are made again; there nothing is to be managed.
        self._with_agent = with_agent and _HOST_VARIABLE not in os.environ
        self._isolated: dict[str, IsolatedPackage] = {}
        self._callbacks: PressureCallbacks | None = None
        self._background = BackgroundWork()
        self._room = self._make_room()
        self._tracker: PackageTracker | None = None
        self._lock = threading.Lock()
        self._monitor: MemoryMonitor | None = None
        self._thresholds_in_force: ThresholdsInForce | None = None
        self._shown: Thresholds | None = None
        self._worker: ManagedWorker | None = None
        self._loop: LeadingLoop | None = None
        self._loop_wanted = False
        self._start()

    # Declaring

    def import_module(
        self,
        name: str,
        *,
        timeout: float | None = None,
        priority: int = 0,
        keep_loaded: bool = False,
        evict: bool = False,
    ) -> ModuleType:
        """Return module `name`, imported when one of its attributes is first asked for, and track its package.

        Args:
            name: absolute, as for `importlib.import_module`.
            timeout: seconds without use that make the package idle; the configured default otherwise.
            priority: of two candidates the lower is unloaded first.
            keep_loaded: leave it loaded unless the pressure is high.
            evict: empty it in place when it is idle and a rehearsal found that this works: it keeps no state that
                matters, such as settings made at run time.
        """
        self.manage(name, timeout=timeout, priority=priority, keep_loaded=keep_loaded, evict=evict)
        return self._tracking().defer(name)

    def manage(
        self,
        name: str,
        *,
        timeout: float | None = None,
        priority: int = 0,
        keep_loaded: bool = False,
        evict: bool = False,
    ) -> None:
        """Track the package of module `name` however it is imported, plain import statements included.

        The options are those of `import_module`.

        Raises:
            ConfigurationError: the name is no absolute module name, or an option cannot be used.
        """
        options = self._checked_options(timeout, priority, keep_loaded=keep_loaded)
        self._tracking().track(checked_name(name), **options, evict=checked_flag("evict", evict))

    def isolated(
        self,
        name: str,
        *,
        timeout: float | None = None,
        priority: int = 0,
        keep_loaded: bool = False,
        start_timeout: float | None = None,
        on_unload: Callable[[], object] | None = None,
        allow_imported: bool = False,
    ) -> "Callable[[Callable[P, R]], IsolatedFunction[P, R]]":
        """Declare a function whose body runs in the own process of package `name`; arguments and result are pickled.

        Args:
            name: the package; functions declared with the same name share its process.
            timeout: seconds without a call that make it idle.
            priority: of two candidates the lower is unloaded first.
            keep_loaded: leave it loaded unless the pressure is high.
            start_timeout: seconds that its process may take to start, imports included; the configured default
                otherwise.
            on_unload: called in the package's process before it ends.
            allow_imported: isolate it although this process has imported it too, and keeps that copy whatever is
                unloaded.

        Raises:
            ConfigurationError: the package was declared before with other options, or an option cannot be used.
            IsolationError: this process has imported the package; or the function cannot run in another process.
        """
        options = {
            **self._checked_options(timeout, priority, keep_loaded=keep_loaded),
            "start_timeout": checked_start_timeout(
                start_timeout, default=self._configuration.mempressure_host_start_timeout
            ),
            "on_unload": on_unload,
        }
        self._require_absent(checked_name(name), allowed=checked_flag("allow_imported", allow_imported))
        package = self._isolated_package(name, options)
        from mempressure.isolation import IsolatedFunction

        def decorate(function: Callable[P, R]) -> IsolatedFunction[P, R]:
            return IsolatedFunction(function, package=package)

        return decorate

    def on_pressure(self, level: str) -> Callable[[Callable[[str], R]], Callable[[str], R]]:
        """Register a function to be called with the alert level, at `level` or above: to drop the app's own caches.

        Raises:
            ConfigurationError: there is no such alert level.
        """
        from mempressure.trim import PressureCallbacks, checked_level  # 30 KB that a worker without any need not pay

        checked_level(level)

        def decorate(callback: Callable[[str], R]) -> Callable[[str], R]:
            with self._lock:
                if self._callbacks is None:
                    self._callbacks = PressureCallbacks()
                self._callbacks.add(level, callback)
            return callback

        return decorate

    def using(self, name: str) -> AbstractContextManager[None]:
        """Mark a tracked package as in use for the length of a `with` block.

        Raises:
            UnknownPackageError: the package is not tracked.
        """
        if self._tracker is None or name not in self._tracker:
            raise unknown_package(name, self.packages())
        return self._tracker.using(name)

    def background_work(self, name: str) -> AbstractContextManager[None]:
        """Declare work that no server waits for: this worker is not recycled during the `with` block.

        As a decorator it declares each call of a function; around a thread's whole life it keeps the worker for good.

        Raises:
            ConfigurationError: the name, by which the refusal tells of it, is empty, too long or cannot be printed.
        """
        if not 0 < len(name) <= _MOST_NAME_LENGTH or not name.isprintable():
            raise ConfigurationError(
                f"name={name!r:.120} of background work cannot be used; "
                f"send a text of 1 to {_MOST_NAME_LENGTH} printable characters"
            )
        return self._background.running(name)

    # Giving back

    def unload(self, name: str) -> UnloadResult:
        """Give back the memory of an isolated package, between its calls, or of one that may be evicted.

        Raises:
            UnknownPackageError: the package is neither isolated nor tracked here.
        """
        if name in self._isolated:
            reclaimed, reason = self._isolated[name].unload()
            return UnloadResult(name, "stop", reclaimed, reason)
        if self._tracker is None or name not in self._tracker:
            raise unknown_package(name, self.packages())
        package = name.partition(".")[0]
        if self._tracker.evicts(package):
            reclaimed, reason = self._tracker.evict(package)
            return UnloadResult(package, "evict", reclaimed, reason)
        reason = "it lives in this process, and only recycling the worker gives its memory back"
        return UnloadResult(package, "recycle", 0, reason)

    # Unloading under pressure without an actuator

    def start(self) -> None:
        """Run the control loop in this process, for as long as no actuator answers at `MEMPRESSURE_ACTUATOR`.

        Of a user's processes that call it one at a time leads, for all applications of that user; where it ends
        another takes over within a second. A forked child of a process that called it is one of them. Does nothing
        where it runs already, and inside a package host.
        """
        self._loop_wanted = True
        self._start_loop()

    def stop(self) -> None:
        """End the control loop of this process: another that called `start` takes over, or an actuator acts."""
        self._loop_wanted = False
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()

    # Watching

    @property
    def monitor(self) -> "MemoryMonitor":
        """Return this process' view of the host's memory."""
        thresholds = self._in_force().now()
        with self._lock:
            if self._monitor is None:
                from mempressure.monitor import MemoryMonitor  # most workers never ask, and need not pay for it

                self._monitor, self._shown = (
                    MemoryMonitor(
                        thresholds=thresholds,
                        cooldown_seconds=self._configuration.mempressure_alert_cooldown,
                        packages=self._held,
                        app=self._configuration.app,
                    ),
                    thresholds,
                )
            if thresholds != self._shown:  # where they are as before, what was set on the monitor itself stays
                self._shown = thresholds
                self._monitor.set_thresholds(thresholds.as_dict())
            return self._monitor

    def packages(self) -> list[PackageState]:
        """Return every declared package as it is now in this process, its hosts measured and its imports attributed."""
        if self._tracker is not None:
            self._tracker.attribute()
        growth = self._worker.growth if self._worker is not None else None
        return package_states(self._tracker, self._isolated, measured_hosts(self._isolated), growth=growth)

    def set_memory_pressure_thresholds(self, thresholds: dict[str, float]) -> None:
        """Set the four thresholds: for the whole node where an actuator answers, else for this process.

        Raises:
            ConfigurationError: they cannot be used together, or the actuator's token cannot be read.
            ActuatorError: the actuator refused, or it is not known what it did.
        """
        # Inside a package host the declarations are made again; its worker has told the actuator.
        self._in_force().set(thresholds, for_the_node=_HOST_VARIABLE not in os.environ)

    def get_memory_pressure_alerts(self) -> "list[AlertDict]":
        """Return the current alerts, as `MemoryMonitor` does."""
        return self.monitor.get_memory_pressure_alerts()

    def get_memory_optimization_suggestions(self) -> "list[SuggestionDict]":
        """Return the current suggestions, the most urgent first, as `MemoryMonitor` does."""
        return self.monitor.get_memory_optimization_suggestions()

    def get_memory_pressure_summary(self) -> "PressureSummary":
        """Return memory, alerts, suggestions and history, as `MemoryMonitor` does."""
        return self.monitor.get_memory_pressure_summary()

    def force_garbage_collection(self) -> "GarbageCollected":
        """Collect garbage now and return what it gave back, as `MemoryMonitor` does."""
        return self.monitor.force_garbage_collection()

    def close(self) -> None:
        """Stop the control loop and the agent, end the package hosts, and leave the import system as it was."""
        self.stop()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        for package in self._isolated.values():
            package.close()
        if self._tracker is not None:
            self._tracker.close()

    def after_fork(self) -> None:
        """Begin anew in a forked child: its own agent, its own hosts, no lock held by a thread that is not here."""
        self._lock = threading.Lock()
        self._monitor = None
        if self._thresholds_in_force is not None:
            self._thresholds_in_force.after_fork()
        self._room = self._make_room()
        if self._tracker is not None:
            self._tracker.after_fork()
        if self._callbacks is not None:
            self._callbacks.after_fork()
        self._background.after_fork()
        if self._worker is not None:
            self._worker.forget()
            self._worker = None
        if self._loop is not None:
            self._loop.forget()
            self._loop = None
        self._start(forked=True)
        if self._loop_wanted:
            self._start_loop(forked=True)

    def _checked_options(self, timeout: float | None, priority: int, *, keep_loaded: bool) -> dict[str, Any]:
        return {
            "timeout": checked_timeout(
                timeout, default=self._configuration.lazy_loading_unloading_memory_pressure_timeout
            ),
            "priority": checked_priority(priority),
            "keep_loaded": checked_flag("keep_loaded", keep_loaded),
        }

    def _start(self, *, forked: bool = False) -> None:
        # A supervisor that has the application serves nothing; its workers start their agents when forked.
        if not self._with_agent or (not forked and (is_supervisor() or postponed(self._start))):
            return
        try:
            worker = ManagedWorker(
                self._configuration,
                tracker=lambda: self._tracker,
                isolated=self._isolated,
                callbacks=lambda: self._callbacks,
                background=self._background,
                forked=forked,
                delay_seconds=FORKED_GRACE_SECONDS if forked else 0.0,
            )
        except ProcessLookupError as error:  # no /proc, as on macOS: nobody could tell this process from another
            import logging  # deferred: most workers never come here

            words = "agent not started, this worker is not managed: reason=%r"
            logging.getLogger(__name__).error(words, str(error))  # noqa: TRY400 -- the reason is whole without a trace
            return
        if worker.start():
            self._worker = worker

    def _start_loop(self, *, forked: bool = False) -> None:
        # As with the agent: a supervisor's workers start theirs when they are forked.
        if not self._with_agent or (not forked and (is_supervisor() or postponed(self._start_loop))):
            return
        from mempressure.leading import LeadingLoop  # nobody pays for it who does not call `start`

        with self._lock:
            if self._loop is not None or not self._loop_wanted:
                return
            self._loop = LeadingLoop(
                self._configuration,
                monitor=lambda: self.monitor,
                settings=lambda: self._in_force().settings(),
                delay_seconds=FORKED_GRACE_SECONDS if forked else 0.0,
            )
        self._loop.start()

    def _make_room(self) -> "Room | None":
        if not self._configuration.mempressure_admission or _HOST_VARIABLE in os.environ:
            return None
        from mempressure.room import Room  # off by default, and then nobody need pay for it
        from mempressure.surroundings import Surroundings

        surroundings = Surroundings(self._configuration)
        return Room(measure=surroundings.measure, emergency=lambda: self._thresholds.emergency, isolated=self._isolated)

    @property
    def _thresholds(self) -> "Thresholds":
        return self._in_force().now() if self._monitor is None else self.monitor.thresholds

    def _in_force(self) -> "ThresholdsInForce":
        with self._lock:
            if self._thresholds_in_force is None:
                from mempressure.thresholds_in_force import ThresholdsInForce  # paid by who watches the memory

                self._thresholds_in_force = ThresholdsInForce(self._configuration)
            return self._thresholds_in_force

    def _reserve_host(self, package: str, cost: int) -> "Reservation":
        from mempressure.features import own_system, package_hosts
        from mempressure.reservation import Reservation

        if reason := package_hosts(own_system()):  # 0.2 of the 30 ms that a start takes
            raise HostStartError(
                f"package {package!r} cannot run in a process of its own here: {reason}; "
                "see mempressure_feature_supported and docs/metrics.md"
            )
        return Reservation(0) if self._room is None else self._room.for_host(package, cost)

    def _reserve_import(self, package: str, cost: int) -> "Reservation":
        from mempressure.reservation import Reservation

        return Reservation(0) if self._room is None else self._room.for_import(package, cost)

    def _held(self) -> list[PackageState]:
        """Return every declared package as the agent measured it last; without an agent it is measured now."""
        if self._worker is None:
            memory = measured_hosts(self._isolated)
        else:
            memory = {package.name: package.cost_bytes for package in list(self._isolated.values())}
        return package_states(self._tracker, self._isolated, memory)

    def _changed(self) -> None:
        if self._worker is not None:
            self._worker.publish_soon()

    def _tracking(self) -> "PackageTracker":
        # 0.2 MB that a worker without a tracked package need not pay
        from mempressure.known_verdicts import KnownVerdicts
        from mempressure.tracking import PackageTracker

        with self._lock:
            if self._tracker is None:
                verdicts = KnownVerdicts(self._configuration.cache_directory)
                self._tracker = PackageTracker(
                    on_change=self._changed,
                    reserve=None if self._room is None else self._reserve_import,
                    evict_refused=verdicts.current_reason_not_to_evict,
                )
            return self._tracker

    def _isolated_package(self, name: str, options: dict[str, Any]) -> "IsolatedPackage":
        from mempressure.isolation import IsolatedPackage  # 0.4 MB that a worker without one need not pay

        with self._lock:
            package = self._isolated.get(name)
            if package is None:
                package = IsolatedPackage(
                    name,
                    on_change=self._changed,
                    reserve=self._reserve_host,
                    message_limit=self._configuration.mempressure_message_limit or sys.maxsize,
                    **options,
                )
                self._isolated[name] = package
                return package
        differing = [key for key, value in options.items() if getattr(package, key) != value]
        if differing:
            raise ConfigurationError(
                f"package {name!r} is isolated already with another {', '.join(differing)}; declare it once alike"
            )
        return package

    def _require_absent(self, name: str, *, allowed: bool) -> None:
        # In a host it is there, and where it was declared before a result may have brought it.
        if allowed or name not in sys.modules or name in self._isolated or _HOST_VARIABLE in os.environ:
            return
        raise imported_already(name)


_loader: LazyLoader | None = None
_loader_lock = threading.Lock()


def get_lazy_loader() -> LazyLoader:
    """Return this process' loader, made at the first call.

    Raises:
        ConfigurationError: a setting cannot be used.
    """
    global _loader  # noqa: PLW0603 -- one loader a process is what this function is for
    with _loader_lock:
        if _loader is None:
            _loader = LazyLoader()
        return _loader


def _after_fork_in_child() -> None:
    global _loader_lock  # noqa: PLW0603 -- a thread that is not here may hold the inherited one
    _loader_lock = threading.Lock()
    if _loader is not None:
        _loader.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
