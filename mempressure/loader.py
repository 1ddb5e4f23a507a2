"""The lazy loader: what an application declares its heavy packages to.

One loader a process, shared by all its threads. It tracks packages imported in the process, runs functions of isolated
packages in processes that the workers of an app share, and has an agent that publishes the state and takes orders.
"""

import os
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from mempressure.bootstrap import Bootstrap
from mempressure.config.configuration import Configuration, load_configuration
from mempressure.forks import ensure_own_process, in_child
from mempressure.package_process import identity
from mempressure.state.records import PackageState

if TYPE_CHECKING:
    from mempressure.act.callbacks import PressureCallbacks
    from mempressure.control.application_loop import ApplicationLoop
    from mempressure.control.monitor import GarbageCollected, MemoryMonitor
    from mempressure.control.process_monitor import ProcessMonitor
    from mempressure.decide.alerts import AlertDict
    from mempressure.decide.suggestions import SuggestionDict
    from mempressure.decide.summary import PressureSummary
    from mempressure.decorators import Block
    from mempressure.isolation.function import IsolatedFunction
    from mempressure.residents.cache import Cache
    from mempressure.residents.resident import Resident
    from mempressure.residents.upkeep import Upkeep
    from mempressure.worker.background_work import BackgroundWork
    from mempressure.worker.declarations import Declarations, UnloadResult
    from mempressure.worker.registry import Packages

__all__ = ["LazyLoader", "get_lazy_loader"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class LazyLoader:
    """Loads packages on first use and gives their memory back.

    Args:
        configuration: as `load_configuration` gives it, which is the default.
        with_agent: publish this process' state and take orders.
    """

    def __init__(self, *, configuration: Configuration | None = None, with_agent: bool = True) -> None:
        self._configuration = load_configuration() if configuration is None else configuration
        if with_agent and (observing := sys.modules.get("mempressure.worker.observer")) is not None:
            observing.give_way()  # under `mempressure run`: only one tracker can see each use
        # Inside a package process the same declarations are made again; there nothing is to be managed.
        self._with_agent = with_agent and identity.packages() is None
        self._lock = threading.Lock()
        self._callbacks: PressureCallbacks | None = None
        self._background: BackgroundWork | None = None
        self._own_monitor: ProcessMonitor | None = None
        self._packages: Packages | None = None
        self._declarations: Declarations | None = None
        self._loop: ApplicationLoop | None = None
        self._upkeep: Upkeep | None = None
        self._bootstrap = Bootstrap(
            self._configuration,
            packages=lambda: self._packages,
            callbacks=lambda: self._callbacks,
            background=lambda: self._background,
            at_tick=self._tick,
        )
        if self._with_agent:
            self._bootstrap.start_agent()

    # Declaring

    def import_module(
        self,
        name: str,
        *,
        timeout: float | None = None,
        priority: int = 0,
        keep_loaded: bool = False,
    ) -> ModuleType:
        """Return module `name`, imported when one of its attributes is first asked for, and track its package.

        Args:
            name: absolute, as for `importlib.import_module`.
            timeout: seconds without use that make the package idle; the configured default otherwise.
            priority: of two candidates the lower is unloaded first.
            keep_loaded: leave it loaded unless the pressure is high.

        Raises:
            ConfigurationError: as `manage`, or the package is not installed (see `installed`). A module that cannot be
                imported raises an `AttributeError`, caused by the `ImportError`, when an attribute is asked for.
        """
        self._declaring().require_installed(name)
        self.manage(name, timeout=timeout, priority=priority, keep_loaded=keep_loaded)
        return self._declaring().ensure_tracker().defer(name)

    def manage(
        self,
        name: str,
        *,
        timeout: float | None = None,
        priority: int = 0,
        keep_loaded: bool = False,
    ) -> None:
        """Track the package of module `name` however it is imported, plain import statements included.

        The options are those of `import_module`. It need not be installed: it may be imported later, from a path that
        is added later, or never.

        Raises:
            ConfigurationError: the name is no absolute module name, or an option cannot be used.
        """
        declarations = self._declaring()
        declarations.track(name, timeout=timeout, priority=priority, keep_loaded=keep_loaded)

    def installed(self, name: str) -> bool:
        """Return whether module `name` could be imported, without importing it: to declare optional dependencies.

        Args:
            name: absolute; a package, or a module of one.

        Raises:
            ConfigurationError: the name is no absolute module name.
            MempressureError: a finder of the import system failed, so that it cannot be told.
        """
        from mempressure.packages.declaration import checked_name
        from mempressure.packages.installed import is_installed  # most applications know what they need

        return is_installed(checked_name(name))

    def track_imports(self) -> None:
        """Measure the import of every third-party package from now on, in this process and in those that it forks.

        What they hold is then known, and what a worker imported late. Their use is not followed: a worker is idle as a
        whole, or it is not.
        """
        self._declaring().track_imports()

    def isolated(  # noqa: PLR0913 - options by keyword
        self,
        *names: str,
        process: str | None = None,
        processes: int | str | None = None,
        results: str = "any",
        timeout: float | None = None,
        priority: int = 0,
        keep_loaded: bool = False,
        start_timeout: float | None = None,
        on_unload: Callable[[], object] | None = None,
        allow_imported: bool = False,
    ) -> "Callable[[Callable[P, R]], IsolatedFunction[P, R]]":
        """Declare a function whose body runs in a process of its package; arguments and result are pickled.

        The workers of an app share the processes, and the state of modules in them. Calls run in the order in which
        they come; a call starts the first process, and one more where calls wait for longer than starting one takes.
        See docs/package-processes.md.

        Args:
            names: the package, or several that live together; functions declared with the same ones share processes.
            process: a name for the processes; the names of the packages, joined by +, otherwise.
            processes: most processes at a time, by default as many as the app may use cores; "worker" for a process of
                each worker's own.
            results: "plain" to have NumPy's scalars become Python's, and other objects of the packages refused: they
                would import their package into the worker.
            timeout: seconds without a call that make it idle.
            priority: of two candidates the lower is unloaded first.
            keep_loaded: leave it loaded unless the pressure is high.
            start_timeout: seconds that its process may take to start, imports included; the configured default
                otherwise.
            on_unload: called in each process of the package before it ends in order; found by name, like the function.
            allow_imported: isolate it although this process has imported it too, and keeps that copy whatever is
                unloaded.

        Raises:
            ConfigurationError: the package is not installed (see `installed`), was declared before with other options,
                or an option cannot be used.
            IsolationError: this process has imported the package; or the function cannot run in another process.
        """
        declared_in = sys._getframe(1).f_globals.get("__name__")  # noqa: SLF001 - as collections.namedtuple does
        if identity.packages() is not None:
            from mempressure.package_process.loader import inside

            return cast("Callable[[Callable[P, R]], IsolatedFunction[P, R]]", inside(names, declared_in))
        package = self._declaring().isolate(
            names,
            process=process,
            processes=processes,
            results=results,
            timeout=timeout,
            priority=priority,
            keep_loaded=keep_loaded,
            start_timeout=start_timeout,
            on_unload=on_unload,
            allow_imported=allow_imported,
        )
        from mempressure.isolation.function import IsolatedFunction  # 0.4 MB that a worker without one need not pay

        def decorate(function: Callable[P, R]) -> IsolatedFunction[P, R]:
            return IsolatedFunction(function, package=package, declared_in=declared_in)

        return decorate

    def on_start(self, *names: str) -> Callable[[F], F]:
        """Register a function that each process of these packages runs before it imports anything else.

        It is found by its name, like an isolated function: define it in a module that imports little.

        Args:
            names: packages, or names of processes; those that nothing is declared with have no effect.

        Raises:
            ConfigurationError: when the function is given: there is no name, or one that cannot be used.
            IsolationError: when the function is given: it cannot be found by name in another process.
        """
        declared_in = sys._getframe(1).f_globals.get("__name__")  # noqa: SLF001 - as collections.namedtuple does

        def decorate(function: F) -> F:
            if identity.packages() is not None:
                from mempressure.package_process.loader import remembered

                return cast(F, remembered(function))
            self._declaring().add_on_start(names, function, declared_in=declared_in)
            return function

        return decorate

    @overload
    def resident(self, function: Callable[[], R], /) -> "Resident[R]": ...

    @overload
    def resident(
        self,
        /,
        *,
        timeout: float = 300.0,
        priority: int = 0,
        keep_loaded: bool = False,
        warm: bool = False,
        name: str | None = None,
    ) -> "Callable[[Callable[[], R]], Resident[R]]": ...

    def resident(
        self,
        function: Callable[[], R] | None = None,
        /,
        *,
        timeout: float = 300.0,
        priority: int = 0,
        keep_loaded: bool = False,
        warm: bool = False,
        name: str | None = None,
    ) -> "Resident[R] | Callable[[Callable[[], R]], Resident[R]]":
        """Declare a function that loads a large object: its calls return that, loaded once, until it is let go.

        It is let go when nothing holds it and it was not used for `timeout` seconds, or sooner under pressure; see
        docs/residents.md. A decorator, with options or without.

        Args:
            function: takes no arguments.
            timeout: seconds without use that make the object idle.
            priority: of two candidates the lower is let go first.
            keep_loaded: leave it loaded unless the pressure is high.
            warm: once pressure is over load it again in the background, if it was used in more than half of the last
                hours; idle alone it stays.
            name: in metrics, on the page and for `unload`; its module and name, as shop.models.model, otherwise.

        Raises:
            ConfigurationError: the function requires arguments, or is a coroutine function or a generator function; an
                option cannot be used; or something else has its name.
        """

        def decorate(function: Callable[[], R]) -> "Resident[R]":
            return self._declaring_residents().resident(
                function, timeout=timeout, priority=priority, keep_loaded=keep_loaded, warm=warm, name=name
            )

        return decorate if function is None else decorate(function)

    @overload
    def cache(self, function: Callable[P, R], /) -> "Cache[P, R]": ...

    @overload
    def cache(
        self,
        /,
        *,
        maxsize: int | None = 128,
        timeout: float = 60.0,
        typed: bool = False,
        priority: int = 0,
        name: str | None = None,
    ) -> "Callable[[Callable[P, R]], Cache[P, R]]": ...

    def cache(
        self,
        function: Callable[P, R] | None = None,
        /,
        *,
        maxsize: int | None = 128,
        timeout: float = 60.0,
        typed: bool = False,
        priority: int = 0,
        name: str | None = None,
    ) -> "Cache[P, R] | Callable[[Callable[P, R]], Cache[P, R]]":
        """Keep a function's results as `functools.lru_cache` does, and give them back as a resident is let go.

        Each result is dropped once it was not used for `timeout` seconds, all of them sooner under pressure.

        Args:
            function: its arguments are hashable.
            maxsize: how many results are kept; None for any number, which the pressure then limits.
            timeout: seconds without use after which a result is dropped.
            typed: keep the results for 3 and 3.0 apart.
            priority: of two candidates the lower is let go first.
            name: in metrics, on the page and for `unload`; the function's module and name otherwise.

        Raises:
            ConfigurationError: it is a coroutine function or a generator function, an option cannot be used, or
                something else has its name.
        """

        def decorate(function: Callable[P, R]) -> "Cache[P, R]":
            return self._declaring_residents().cache(
                function, maxsize=maxsize, timeout=timeout, typed=typed, priority=priority, name=name
            )

        return decorate if function is None else decorate(function)

    def on_pressure(self, level: str) -> Callable[[F], F]:
        """Register a function to be called at alert level `level` and above: to drop the app's own caches.

        It is called with the level where it takes an argument, in a thread of its own: first when unloading begins, at
        each higher level, and once a minute while the pressure lasts.

        Raises:
            ConfigurationError: there is no such alert level; or, when the function is given, it takes other arguments,
                or is a coroutine function or a generator function.
        """
        from mempressure.act.callbacks import (
            PressureCallbacks,
            checked_level,
        )  # 40 KB that a worker without any need not pay

        checked_level(level)

        ensure_own_process()

        def decorate(callback: F) -> F:
            with self._lock:
                if self._callbacks is None:
                    self._callbacks = PressureCallbacks()
                self._callbacks.add(level, callback)
            return callback

        return decorate

    def using(self, name: str) -> "Block":
        """Mark a tracked package as in use for the length of a `with` block or, as a decorator, of each call.

        Raises:
            UnknownPackageError: the package is not tracked.
        """
        return self._declaring().tracker_of(name).using(name)

    def background_work(self, name: str) -> "Block":
        """Declare work that no server waits for: this worker is not recycled during the `with` block.

        As a decorator it declares each call of a function, of a coroutine function until its coroutine has ended;
        around a thread's whole life it keeps the worker for good.

        Raises:
            ConfigurationError: the name, which the refusal quotes, is empty, too long or cannot be printed.
        """
        from mempressure.worker.background_work import BackgroundWork, checked_work_name  # most workers have none

        name = checked_work_name(name)
        ensure_own_process()
        with self._lock:
            if self._background is None:
                self._background = BackgroundWork()
        return self._background.running(name)

    # Giving back

    def unload(self, name: str) -> "UnloadResult":
        """Give back the memory of an isolated package, between its calls, or let a resident go.

        Raises:
            UnknownPackageError: nothing of that name is isolated, tracked or resident here.
        """
        return self._declaring().unload(name)

    # Unloading under pressure without an actuator

    def start(self) -> None:
        """Run the control loop in this process, for as long as no actuator answers at `MEMPRESSURE_ACTUATOR`.

        Of a user's processes that call it one at a time leads, for all applications of that user; where it ends
        another takes over within a second. A forked child of a process that called it is one of them. Does nothing
        where it runs already, and inside a package process.
        """
        if not self._with_agent:
            return
        ensure_own_process()
        from mempressure.control.application_loop import ApplicationLoop  # paid for where `start` is called

        with self._lock:
            if self._loop is None:
                self._loop = ApplicationLoop(
                    self._configuration,
                    monitor=self._process_monitor,
                    has_agent=lambda: self._bootstrap.worker is not None,
                )
        self._loop.start()

    def stop(self) -> None:
        """End the control loop of this process: another that called `start` takes over, or an actuator acts."""
        ensure_own_process()
        if self._loop is not None:
            self._loop.stop()

    # Watching

    @property
    def monitor(self) -> "MemoryMonitor":
        """Return this process' view of the host's memory."""
        return self._process_monitor().monitor

    def packages(self) -> list[PackageState]:
        """Return every declared package as it is now, package processes measured and imports attributed.

        What workers share, the memory and number of package processes, each of them returns as a whole.
        """
        ensure_own_process()
        if self._packages is None:
            return []
        if self._packages.tracker is not None:
            self._packages.tracker.update_attribution()
        growth = None if self._bootstrap.worker is None else self._bootstrap.worker.growth
        return self._packages.states(self._packages.measured_processes(), growth=growth)

    def set_memory_pressure_thresholds(self, thresholds: dict[str, float]) -> None:
        """Set the four thresholds: for the whole node where an actuator answers, else for this process.

        Raises:
            ConfigurationError: they cannot be used together, or the actuator's token cannot be read.
            ActuatorError: the actuator refused, or it is not known what it did.
        """
        # Inside a package process the declarations are made again; its worker has set them through the actuator.
        self._process_monitor().set_thresholds(thresholds, for_the_node=identity.packages() is None)

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
        """Stop the control loop and the agent, leave the import system as it was, and use no package process any more.

        Package processes that no other worker uses are ended.
        """
        self.stop()
        self._bootstrap.stop()
        if self._packages is not None:
            self._packages.close()

    def before_fork(self) -> None:
        """Have a supervisor prepare what its workers would otherwise load and look up each for itself."""
        self._bootstrap.before_fork()
        if self._loop is not None:
            self._loop.before_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child: with its own agent, package processes and locks."""
        self._lock = threading.Lock()
        if self._own_monitor is not None:
            self._own_monitor.after_fork()
        if self._declarations is not None:
            self._declarations.after_fork()
        if self._packages is not None:
            self._packages.after_fork()
        if self._callbacks is not None:
            self._callbacks.after_fork()
        if self._background is not None:
            self._background.after_fork()
        if self._with_agent:
            self._bootstrap.after_fork()
        if self._loop is not None:
            self._loop.after_fork()

    def _tick(self) -> None:
        if self._upkeep is not None:
            self._upkeep.tick()
        if self._loop is not None:
            self._loop.contend()

    def _declaring(self) -> "Declarations":
        ensure_own_process()
        from mempressure.worker.declarations import Declarations  # 70 KB, paid with the first declaration
        from mempressure.worker.registry import Packages

        with self._lock:
            if self._declarations is None:
                self._packages = Packages(
                    self._configuration,
                    on_change=self._changed,
                    emergency=lambda: self._process_monitor().thresholds.emergency,
                    unloading=lambda: self._process_monitor().thresholds.unload_packages,
                )
                self._declarations = Declarations(self._packages)
            return self._declarations

    def _declaring_residents(self) -> "Declarations":
        declarations, app = self._declaring(), self._configuration.app

        def is_kept(name: str, declared: bool) -> bool:  # noqa: FBT001 -- as `Upkeep` calls it
            return self._process_monitor().settings().keep_loaded(app, name, declared=declared)

        with self._lock:
            if self._upkeep is None:
                self._upkeep = declarations.upkeep(
                    is_kept=is_kept, limit=lambda: self._process_monitor().thresholds.exit("unload_packages")
                )
        return declarations

    def _process_monitor(self) -> "ProcessMonitor":
        ensure_own_process()
        with self._lock:
            if self._own_monitor is None:
                from mempressure.control.process_monitor import ProcessMonitor  # most workers never ask for it

                self._own_monitor = ProcessMonitor(self._configuration, packages=self._last_states)
            return self._own_monitor

    def _last_states(self) -> list[PackageState]:
        """Return every declared package as the agent measured it last; without an agent it is measured now."""
        packages = self._packages
        if packages is None:
            return []
        return packages.states(packages.measured_processes() if self._bootstrap.worker is None else packages.measured)

    def _changed(self) -> None:
        if self._bootstrap.worker is not None:
            self._bootstrap.worker.agent.publish_soon()


_loader: LazyLoader | None = None
_loader_lock = threading.Lock()


def get_lazy_loader() -> LazyLoader:
    """Return this process' loader, made at the first call.

    Raises:
        ConfigurationError: a setting cannot be used.
    """
    global _loader  # noqa: PLW0603 -- one loader a process is what this function is for
    ensure_own_process()
    with _loader_lock:
        if _loader is None:
            _loader = LazyLoader()
        return _loader


def _before_fork() -> None:
    if _loader is not None:
        _loader.before_fork()


def _after_fork_in_child() -> None:
    global _loader_lock  # noqa: PLW0603 -- a thread that is not here may hold the inherited one
    _loader_lock = threading.Lock()
    if _loader is not None:
        _loader.after_fork()


os.register_at_fork(before=_before_fork)
in_child(_after_fork_in_child)
