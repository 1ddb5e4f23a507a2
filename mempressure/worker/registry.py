"""What is declared in this process: packages imported here or run in processes of their own, and residents."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from mempressure.config.configuration import Configuration
from mempressure.errors import UnknownPackageError
from mempressure.measure.process import MeasuredProcesses, ProcessMemory
from mempressure.state.records import PackageState

if TYPE_CHECKING:
    from mempressure.isolation.package import IsolatedPackage
    from mempressure.packages.tracking import PackageTracker
    from mempressure.residents.unit import Unit


class Packages:
    """The declared packages of a process, as they are now.

    Args:
        configuration: of the process.
        on_change: called when something was loaded or unloaded.
        emergency: returns the threshold that a load must not enter, a ratio.
        unloading: returns the threshold that unloading begins at, a ratio.

    Attributes:
        isolated: those that run in processes of their own, by name.
        measured: their processes' memory when it was last measured.
        tracker: tracks those imported in this process; None until one is declared.
        residents: objects and caches that this process loads and lets go, by name.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        on_change: Callable[[], None],
        emergency: Callable[[], float],
        unloading: Callable[[], float],
    ) -> None:
        self.configuration = configuration
        self.on_change = on_change
        self.emergency = emergency
        self.unloading = unloading
        self.isolated: dict[str, IsolatedPackage] = {}
        self.measured: MeasuredProcesses = {}
        self.tracker: PackageTracker | None = None
        self.residents: dict[str, Unit] = {}

    def states(self, memory: MeasuredProcesses, *, growth: Mapping[str, float] | None = None) -> list[PackageState]:
        """Return every declared package as it is now.

        Args:
            memory: the memory of the package processes.
            growth: by how many bytes per second the processes of each package grow, where that is known.
        """
        here = [] if self.tracker is None else self.tracker.states()
        here += [unit.state() for unit in list(self.residents.values())]
        if not self.isolated:
            return here
        from mempressure.worker.isolated_states import isolated_states  # only paid for where there is one

        return here + isolated_states(self.isolated, memory, growth=growth)

    def process_pids(self) -> dict[str, list[int]]:
        """Return the process ids of each isolated package's processes."""
        return {package.name: package.process_pids for package in list(self.isolated.values())}

    def measured_processes(self) -> dict[str, dict[int, ProcessMemory]]:
        """Measure every package process now, with what it started: 0.2 ms for one of 20 MB, 13 ms for 1 GB."""
        from mempressure.package_process.descendants import memory_of_tree  # only paid for where one is declared

        measured: dict[str, dict[int, ProcessMemory]] = {}
        for name, pids in self.process_pids().items():
            for pid in pids:
                with suppress(ProcessLookupError):  # it has just ended
                    private, proportional = memory_of_tree(pid)
                    measured.setdefault(name, {})[pid] = ProcessMemory(proportional, private)
        return measured

    def begin_serving(self) -> None:
        """Count from now on what is loaded as loaded late: this process has what a fresh one has."""
        if self.tracker is not None:
            self.tracker.begin_serving()
        for unit in list(self.residents.values()):
            unit.begin_serving()

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
        """Begin anew in a forked child; isolated packages and residents do so by themselves."""
        if self.tracker is not None:
            self.tracker.after_fork()


def unknown_package_error(name: str, declared: Packages | None) -> UnknownPackageError:
    """Return the error for a name that is not declared here, naming those that are."""
    names = [] if declared is None else sorted(package.name for package in declared.states({}))
    return UnknownPackageError(
        f"package {name!r} is not managed here; known are {', '.join(names) or 'none'}; "
        "declare it with manage, import_module, isolated, resident or cache"
    )
