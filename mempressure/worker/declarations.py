"""Declaring packages: the checks, and the tracker and the isolated packages that the first declaration makes.

Imported with the first declaration; what was declared is in `mempressure.worker.registry`.
"""

import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from mempressure.errors import ConfigurationError
from mempressure.package_process import identity
from mempressure.packages.declaration import (
    checked_flag,
    checked_name,
    checked_names,
    checked_priority,
    checked_process_name,
    checked_processes,
    checked_results,
    checked_start_timeout,
    checked_timeout,
    imported_already,
)
from mempressure.worker.registry import Packages, unknown_package_error

if TYPE_CHECKING:
    from mempressure.decide.admission import ScopeMemory
    from mempressure.isolation.calls import HookName
    from mempressure.isolation.package import IsolatedPackage
    from mempressure.packages.reservation import Reservation
    from mempressure.packages.tracking import PackageTracker
    from mempressure.residents.cache import Cache
    from mempressure.residents.resident import Resident
    from mempressure.residents.unit import Unit
    from mempressure.residents.upkeep import Upkeep
    from mempressure.worker.admission_control import AdmissionControl

P = ParamSpec("P")
R = TypeVar("R")
_Unit = TypeVar("_Unit", bound="Unit")


class UnloadResult(NamedTuple):
    """What unloading one package brought: bytes measured, or why it was left alone."""

    package: str
    mechanism: str
    reclaimed_bytes: int
    skipped_reason: str | None = None


class Declarations:
    """Declares packages and unloads them on request.

    Args:
        packages: where what was declared is kept.

    Attributes:
        admission: reserves memory before a load; None where loads need no reservation.
    """

    def __init__(self, packages: Packages) -> None:
        self._packages = packages
        self._lock = threading.Lock()
        self.admission = self._make_admission()
        self._spare: AdmissionControl | None = None
        self._started_with: dict[str, list[HookName]] = {}

    def ensure_tracker(self) -> "PackageTracker":
        """Return the tracker, made by the first call."""
        from mempressure.packages.tracking import (
            PackageTracker,  # 0.2 MB that a worker without a tracked package need not pay
        )

        with self._lock:
            if self._packages.tracker is None:
                self._packages.tracker = PackageTracker(
                    on_change=self._packages.on_change,
                    reserve=None if self.admission is None else self._reserve_import,
                )
            return self._packages.tracker

    def track(self, name: str, *, timeout: float | None, priority: int, keep_loaded: bool) -> None:
        """Track the package of module `name`; see `LazyLoader.manage`.

        Raises:
            ConfigurationError: the name is no absolute module name, or an option cannot be used.
        """
        options = self._options(timeout=timeout, priority=priority, keep_loaded=keep_loaded)
        self._refuse_residents_name(checked_name(name).partition(".")[0])
        self.ensure_tracker().track(name, **options)

    def require_installed(self, name: str) -> None:
        """Refuse a declaration of module `name` whose package is not installed.

        Raises:
            ConfigurationError: the name is no absolute module name, or its package is not installed.
        """
        checked_name(name)
        if identity.packages() is not None:  # the worker has found it, and this would be part of each start
            return
        from mempressure.packages.installed import require_installed

        require_installed(name)

    def track_imports(self) -> None:
        """Track each third-party package that is imported from now on; see `LazyLoader.track_imports`."""
        from mempressure.packages.third_party import is_third_party

        tracker, timeout = self.ensure_tracker(), self._packages.configuration.package_timeout
        seen: dict[str, bool] = {}

        def discover(name: str) -> bool:
            if name not in seen:
                seen[name] = is_third_party(name) and name not in self._packages.residents
                if seen[name]:
                    tracker.track(name, timeout=timeout, discovered=True)
            return seen[name]

        tracker.discover_all(discover)

    def tracker_of(self, name: str) -> "PackageTracker":
        """Return the tracker.

        Raises:
            UnknownPackageError: it does not track the package of module `name`.
        """
        if self._packages.tracker is None or name not in self._packages.tracker:
            raise unknown_package_error(name, self._packages)
        return self._packages.tracker

    def isolate(
        self,
        names: tuple[str, ...],
        *,
        process: str | None,
        processes: int | str | None,
        results: str,
        start_timeout: float | None,
        on_unload: Callable[[], object] | None,
        allow_imported: bool,
        **options: Any,
    ) -> "IsolatedPackage":
        """Return the isolated package of these names, made by the first call; see `LazyLoader.isolated`.

        Raises:
            ConfigurationError: the package is not installed, an option cannot be used, or the package was declared
                before with other options.
            IsolationError: this process has imported it.
        """
        options = {
            **self._options(**options),
            "start_timeout": checked_start_timeout(
                start_timeout, default=self._packages.configuration.process_start_timeout
            ),
            "on_unload": on_unload,
            "processes": checked_processes(processes),
            "results": checked_results(results),
            "packages": checked_names(names),
        }
        allow_imported = checked_flag("allow_imported", allow_imported)
        name = checked_process_name(process, packages=names)
        self._refuse_residents_name(name)
        for each in names:
            self.require_installed(each)
        # Where it was declared before, a result may have imported it here.
        if not allow_imported and name not in self._packages.isolated:
            for each in names:
                if each in sys.modules:
                    raise imported_already(each)
        from mempressure.isolation.package import IsolatedPackage  # 0.4 MB that a worker without one need not pay

        with self._lock:
            package = self._packages.isolated.get(name)
            if package is None:
                package = IsolatedPackage(
                    name,
                    on_change=self._packages.on_change,
                    reserve=self._reserve_process,
                    reserve_another=self._reserve_another,
                    message_limit=self._packages.configuration.message_limit or sys.maxsize,
                    on_start=lambda: self._on_start(name, names),
                    app=self._packages.configuration.app,
                    runtime=self._packages.configuration.runtime_directory,
                    **options,
                )
                self._packages.isolated[name] = package
                return package
        package.note_declaration()
        differing = [key for key, value in options.items() if getattr(package, key) != value]
        if differing:
            raise ConfigurationError(
                f"package {name!r} is isolated already with another {', '.join(differing)}; declare it once alike"
            )
        return package

    def add_on_start(self, names: tuple[str, ...], function: Callable[[], object], *, declared_in: str | None) -> None:
        """Have the processes of these packages run a function first; see `LazyLoader.on_start`.

        Raises:
            ConfigurationError: no name was given.
            IsolationError: the function cannot be found by name in another process.
        """
        from mempressure.isolation.calls import hook_name
        from mempressure.package_process import functions

        checked_names(names)
        module, qualname, home = hook_name(function, declared_in=declared_in)
        functions.declare(module, qualname, function)
        for name in names:
            self._started_with.setdefault(name, []).append((module, qualname, home))

    def _on_start(self, name: str, packages: tuple[str, ...]) -> "list[HookName]":
        hooks = [hook for each in dict.fromkeys((name, *packages)) for hook in self._started_with.get(each, [])]
        return list(dict.fromkeys(hooks))

    def resident(
        self,
        function: Callable[[], R],
        *,
        timeout: float,
        priority: int,
        keep_loaded: bool,
        warm: bool,
        name: str | None,
    ) -> "Resident[R]":
        """Return the resident that a function loads; see `LazyLoader.resident`.

        Raises:
            ConfigurationError: the function cannot be one, an option cannot be used, or the name is another's.
        """
        from mempressure.residents.declaration import checked_function, checked_unit_name
        from mempressure.residents.resident import Resident

        checked_function(function, what="resident", takes_arguments=False)
        made = Resident(
            function,
            name=checked_unit_name(name, function),
            warm=checked_flag("warm", warm),
            on_change=self._packages.on_change,
            reserve=self._reserve_import,
            **self._options(timeout=timeout, priority=priority, keep_loaded=keep_loaded),
        )
        return self._keep(made)

    def cache(
        self,
        function: Callable[P, R],
        *,
        maxsize: int | None,
        timeout: float,
        typed: bool,
        priority: int,
        name: str | None,
    ) -> "Cache[P, R]":
        """Return the cache of a function's results; see `LazyLoader.cache`.

        Raises:
            ConfigurationError: the function cannot have one, an option cannot be used, or the name is another's.
        """
        from mempressure.packages.declaration import checked_maxsize
        from mempressure.residents.cache import Cache
        from mempressure.residents.declaration import checked_function, checked_unit_name

        checked_function(function, what="cache", takes_arguments=True)
        made = Cache(
            function,
            name=checked_unit_name(name, function),
            maxsize=checked_maxsize(maxsize),
            typed=checked_flag("typed", typed),
            on_change=self._packages.on_change,
            **self._options(timeout=timeout, priority=priority, keep_loaded=False),
        )
        return self._keep(made)

    def upkeep(self, *, is_kept: Callable[[str, bool], bool], limit: Callable[[], float]) -> "Upkeep":
        """Return what looks after the residents and caches once a second; see `mempressure.residents.upkeep`."""
        from mempressure.residents.upkeep import Upkeep

        def scopes() -> "Iterable[ScopeMemory]":
            from mempressure.worker.memory_view import MemoryReader  # only paid for where one is to be loaded again

            return MemoryReader(self._packages.configuration).measure(self._packages.isolated).scopes

        return Upkeep(self._packages.residents, is_kept=is_kept, limit=limit, scopes=scopes)

    def unload(self, name: str) -> UnloadResult:
        """Give back the memory of an isolated package, between its calls, or of a resident.

        Raises:
            UnknownPackageError: nothing of that name is isolated, tracked or resident here.
        """
        if name in self._packages.residents:
            return UnloadResult(name, "release", *self._packages.residents[name].release())
        if name in self._packages.isolated:
            reclaimed, reason = self._packages.isolated[name].unload()
            return UnloadResult(name, "stop", reclaimed, reason)
        self.tracker_of(name)
        package = name.partition(".")[0]
        reason = "it lives in this process, and only recycling the worker gives its memory back"
        return UnloadResult(package, "recycle", 0, reason)

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        self._lock = threading.Lock()
        self.admission = self._make_admission()
        self._spare = None

    def _keep(self, unit: _Unit) -> _Unit:
        """Add a resident or a cache; one that the same function declared before, as before a reload, gives way to it.

        Raises:
            ConfigurationError: something else has its name.
        """
        self._refuse_packages_name(unit.name)
        with self._lock:
            known = self._packages.residents.get(unit.name)
            if known is not None and _origin(known) != _origin(unit):
                raise ConfigurationError(
                    f"{'.'.join(_origin(known))} is resident as {unit.name!r} already; give one of them another name="
                )
            self._packages.residents[unit.name] = unit
        if known is not None:
            known.release()
        return unit

    def _refuse_packages_name(self, name: str) -> None:
        tracker = self._packages.tracker
        if name in self._packages.isolated or (tracker is not None and any(p.name == name for p in tracker.states())):
            raise ConfigurationError(f"{name!r} is declared as a package already; give the resident another name=")

    def _refuse_residents_name(self, name: str) -> None:
        if name in self._packages.residents:
            raise ConfigurationError(f"{name!r} is the name of a resident already; give that another name=")

    def _options(self, *, timeout: float | None, priority: int, keep_loaded: bool) -> dict[str, Any]:
        default = self._packages.configuration.package_timeout
        return {
            "timeout": checked_timeout(timeout, default=default),
            "priority": checked_priority(priority),
            "keep_loaded": checked_flag("keep_loaded", keep_loaded),
        }

    def _make_admission(self) -> "AdmissionControl | None":
        off = not self._packages.configuration.admission or identity.packages() is not None
        return None if off else self._admission_control()

    def _admission_control(self) -> "AdmissionControl":
        from mempressure.worker.admission_control import AdmissionControl  # off by default
        from mempressure.worker.memory_view import MemoryReader

        reader = MemoryReader(self._packages.configuration)
        return AdmissionControl(
            measure=reader.measure,
            emergency=self._packages.emergency,
            isolated=self._packages.isolated,
            residents=self._packages.residents,
        )

    def _reserve_process(self, package: str, cost: int) -> "Reservation":
        """Refuse where package processes cannot work; else reserve memory."""
        from mempressure.act.self_check import check_package_processes, own_system
        from mempressure.errors import ProcessStartError
        from mempressure.packages.reservation import Reservation

        if reason := check_package_processes(own_system()):  # 0.2 of the 30 ms that a start takes
            raise ProcessStartError(
                f"package {package!r} cannot run in a process of its own here: {reason}; "
                "see mempressure_feature_supported and docs/metrics.md"
            )
        return Reservation(0) if self.admission is None else self.admission.reserve_for_process(package, cost)

    def _reserve_another(self, package: str, cost: int) -> "Reservation":
        """Reserve memory for one package process more: also where loads need no reservation, it has to have room."""
        if self.admission is None and self._spare is None:
            self._spare = self._admission_control()
        control = self.admission or self._spare
        return control.reserve_for_another(package, cost, below=self._packages.unloading())  # type: ignore[union-attr]  # made above

    def _reserve_import(self, package: str, cost: int) -> "Reservation":
        from mempressure.packages.reservation import Reservation

        return Reservation(0) if self.admission is None else self.admission.reserve_for_import(package, cost)


def _origin(unit: "Unit") -> tuple[str, str]:
    """Return the module and name of the function that a resident or a cache was made of."""
    return getattr(unit, "__module__", ""), getattr(unit, "__qualname__", "")
