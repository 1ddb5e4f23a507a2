"""The packages declared in this process: those imported here, and those that live in processes of their own."""

import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from mempressure.config.configuration import PACKAGE_PROCESS_VARIABLE, Configuration
from mempressure.errors import ConfigurationError, ProcessStartError, UnknownPackageError
from mempressure.measure.process import private_bytes
from mempressure.packages.declaration import imported_already
from mempressure.state.records import PackageState
from mempressure.worker.isolated_states import isolated_states

if TYPE_CHECKING:
    from mempressure.isolation.package import IsolatedPackage
    from mempressure.packages.reservation import Reservation
    from mempressure.packages.tracking import PackageTracker
    from mempressure.worker.admission_control import Room


class UnloadResult(NamedTuple):
    """What unloading one package brought: bytes measured, or why it was left alone."""

    package: str
    mechanism: str
    reclaimed_bytes: int
    skipped_reason: str | None = None


class Packages:
    """The declared packages, each made at its first declaration.

    Args:
        configuration: says where verdicts are kept, how much a call may carry, and whether loads need room.
        on_change: called when something was loaded or unloaded.
        emergency: returns the threshold that a load must not enter, a ratio.

    Attributes:
        isolated: those that live in processes of their own, by name.
        tracker: tracks those imported in this process; None until one is declared.
        room: what reserves memory before a load; None where loads need none.
    """

    def __init__(
        self, configuration: Configuration, *, on_change: Callable[[], None], emergency: Callable[[], float]
    ) -> None:
        self._configuration = configuration
        self._on_change = on_change
        self._emergency = emergency
        self._lock = threading.Lock()
        self.isolated: dict[str, IsolatedPackage] = {}
        self.tracker: PackageTracker | None = None
        self.room = self._make_room()

    def tracking(self) -> "PackageTracker":
        """Return the tracker, made by the first call."""
        # 0.2 MB that a worker without a tracked package need not pay
        from mempressure.packages.tracking import PackageTracker

        with self._lock:
            if self.tracker is None:
                self.tracker = PackageTracker(
                    on_change=self._on_change,
                    reserve=None if self.room is None else self._reserve_import,
                )
            return self.tracker

    def tracked(self, name: str) -> "PackageTracker":
        """Return the tracker, which tracks the package of module `name`.

        Raises:
            UnknownPackageError: it does not.
        """
        if self.tracker is None or name not in self.tracker:
            raise self.unknown(name)
        return self.tracker

    def isolate(self, name: str, options: Mapping[str, Any], *, allow_imported: bool) -> "IsolatedPackage":
        """Return the isolated package of that name, made by the first call.

        Args:
            name: the package's import name.
            options: as `IsolatedPackage` takes them, alike at each call.
            allow_imported: isolate it although this process has imported it.

        Raises:
            ConfigurationError: it was declared before with other options.
            IsolationError: this process has imported it.
        """
        # A package process has it imported, and where it was declared before a result may have imported it here.
        if not (
            allow_imported or name not in sys.modules or name in self.isolated or PACKAGE_PROCESS_VARIABLE in os.environ
        ):
            raise imported_already(name)
        from mempressure.isolation.package import IsolatedPackage  # 0.4 MB that a worker without one need not pay

        with self._lock:
            package = self.isolated.get(name)
            if package is None:
                package = IsolatedPackage(
                    name,
                    on_change=self._on_change,
                    reserve=self._reserve_process,
                    message_limit=self._configuration.message_limit or sys.maxsize,
                    **options,
                )
                self.isolated[name] = package
                return package
        differing = [key for key, value in options.items() if getattr(package, key) != value]
        if differing:
            raise ConfigurationError(
                f"package {name!r} is isolated already with another {', '.join(differing)}; declare it once alike"
            )
        return package

    def unload(self, name: str) -> UnloadResult:
        """Give back the memory of an isolated package, between its calls.

        Raises:
            UnknownPackageError: the package is neither isolated nor tracked here.
        """
        if name in self.isolated:
            reclaimed, reason = self.isolated[name].unload()
            return UnloadResult(name, "stop", reclaimed, reason)
        self.tracked(name)
        package = name.partition(".")[0]
        reason = "it lives in this process, and only recycling the worker gives its memory back"
        return UnloadResult(package, "recycle", 0, reason)

    def states(self, memory: Mapping[str, int], *, growth: Mapping[str, float] | None = None) -> list[PackageState]:
        """Return every declared package as it is now.

        Args:
            memory: each package process's private memory in bytes, by package.
            growth: by how many bytes per second each of them grows, where that is known.
        """
        tracked = [] if self.tracker is None else self.tracker.states()
        return tracked + isolated_states(self.isolated, memory, growth=growth)

    def process_pids(self) -> dict[str, int | None]:
        """Return the process id of each isolated package's process, None where none runs."""
        return {package.name: package.process_pid for package in list(self.isolated.values())}

    def costs(self) -> dict[str, int]:
        """Return what each isolated package's process held when it was last measured, in bytes."""
        return {package.name: package.cost_bytes for package in list(self.isolated.values())}

    def measured_processes(self) -> dict[str, int]:
        """Measure every package process now; return its private memory in bytes (0.2 ms at 20 MB, 13 ms at 1 GB)."""
        measured = {}
        for name, pid in self.process_pids().items():
            if pid is not None:
                with suppress(ProcessLookupError):  # it has just ended
                    measured[name] = private_bytes(pid)
        return measured

    def unknown(self, name: str) -> UnknownPackageError:
        """Return the error for a name that is not declared here, naming those that are."""
        names = ", ".join(sorted(package.name for package in self.states({}))) or "none"
        return UnknownPackageError(
            f"package {name!r} is not managed here; known are {names}; "
            "declare it with manage, import_module or isolated"
        )

    def close_processes(self) -> None:
        """End the process of every isolated package."""
        for package in list(self.isolated.values()):
            package.close()

    def close(self) -> None:
        """End the package processes, and leave the import system as it was."""
        self.close_processes()
        if self.tracker is not None:
            self.tracker.close()

    def after_fork(self) -> None:
        """Begin anew in a forked child; the isolated packages do so by themselves."""
        self._lock = threading.Lock()
        self.room = self._make_room()
        if self.tracker is not None:
            self.tracker.after_fork()

    def _make_room(self) -> "Room | None":
        if not self._configuration.admission or PACKAGE_PROCESS_VARIABLE in os.environ:
            return None
        from mempressure.worker.admission_control import Room  # off by default, and then nobody need pay for it
        from mempressure.worker.memory_view import Surroundings

        surroundings = Surroundings(self._configuration)
        return Room(measure=surroundings.measure, emergency=self._emergency, isolated=self.isolated)

    def _reserve_process(self, package: str, cost: int) -> "Reservation":
        from mempressure.act.self_check import own_system, package_processes
        from mempressure.packages.reservation import Reservation

        if reason := package_processes(own_system()):  # 0.2 of the 30 ms that a start takes
            raise ProcessStartError(
                f"package {package!r} cannot run in a process of its own here: {reason}; "
                "see mempressure_feature_supported and docs/metrics.md"
            )
        return Reservation(0) if self.room is None else self.room.for_process(package, cost)

    def _reserve_import(self, package: str, cost: int) -> "Reservation":
        from mempressure.packages.reservation import Reservation

        return Reservation(0) if self.room is None else self.room.for_import(package, cost)
