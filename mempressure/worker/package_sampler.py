"""Sampling of a worker's declared packages for its state: uses, memory, growth and verdicts.

Imported with the first declaration: a worker without packages need not hold it.
"""

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mempressure.measure.process import MeasuredProcesses
from mempressure.measure.reading import UNKNOWN
from mempressure.state.records import WorkerState
from mempressure.verdicts.known import KnownVerdicts
from mempressure.worker.registry import Packages

if TYPE_CHECKING:
    from mempressure.measure.growth import ProcessGrowth
    from mempressure.packages.tracking import PackageTracker


class PackageSampler:
    """Adds the packages to the state of their worker.

    Args:
        packages: the declared packages.
        cache_directory: returns the directory with the verdicts, another one once the process has another user.
    """

    def __init__(self, packages: Packages, *, cache_directory: Callable[[], Path]) -> None:
        self._packages = packages
        self._verdicts = KnownVerdicts(cache_directory)
        self._growth: ProcessGrowth | None = None

    @property
    def growth(self) -> dict[str, float]:
        """Return by how many bytes per second each package's own processes grow."""
        return {} if self._growth is None else self._growth.rates()

    def sample(
        self,
        measure: Callable[[Mapping[str, Collection[int]]], tuple[WorkerState, MeasuredProcesses]],
        *,
        tracker: "PackageTracker | None",
    ) -> WorkerState:
        """Return the state of the worker with its packages.

        Args:
            measure: takes the process ids of each isolated package; returns the worker's state without packages, and
                the memory of those processes.
            tracker: of the packages imported here, as the self-check set it; None where none is declared.
        """
        if tracker is not None:
            tracker.tick()
            tracker.update_attribution(now=time.monotonic())
        worker, memory = measure(self._packages.process_pids())
        self._packages.measured = memory
        for name, processes in memory.items():
            # What one more of them would take.
            self._packages.isolated[name].cost_bytes = max(process.private for process in processes.values())
        self._note_growth(worker.sampled, memory)
        # Not the registry's: a tracker made since then does not know yet what is unsupported here.
        worker.packages = [] if tracker is None else tracker.states()
        if tracker is not None and worker.baseline_bytes != UNKNOWN:
            worker.late_bytes = float(tracker.late_bytes)
        isolated = list(self._packages.isolated.values())
        if isolated:
            from mempressure.worker.isolated_states import isolated_states  # only paid for where there is one

            worker.packages += isolated_states(self._packages.isolated, memory, growth=self.growth)
        if worker.packages:
            self._verdicts.refresh()
        for package in worker.packages:
            package.verdict = self._verdicts.mechanism(package.name)
        if residents := list(self._packages.residents.values()):
            worker.packages += [unit.state() for unit in residents]
            if worker.baseline_bytes != UNKNOWN:  # which its successor will load too: it is no growth
                worker.late_bytes = max(0.0, worker.late_bytes) + sum(unit.late_bytes for unit in residents)
        worker.process_deaths = float(sum(package.process_deaths for package in isolated))
        worker.process_start_failures = float(sum(package.start_failures for package in isolated))
        return worker

    def _note_growth(self, now: float, memory: MeasuredProcesses) -> None:
        if memory and self._growth is None:
            from mempressure.measure.growth import ProcessGrowth  # only paid for where there is a package process

            self._growth = ProcessGrowth()
        if self._growth is not None:
            self._growth.add(now, memory)
