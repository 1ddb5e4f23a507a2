"""The memory that a worker sees before it loads a package: of the host and the app, and known costs of loads."""

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mempressure.act.supervisors import SupervisorFinder
from mempressure.config.configuration import Configuration
from mempressure.decide.admission import ScopeMemory
from mempressure.decide.ranking import freeable_bytes
from mempressure.errors import MempressureError
from mempressure.isolation.package import IsolatedPackage
from mempressure.log_once import LogOnce
from mempressure.measure.cgroup import own_cgroup
from mempressure.measure.memory import host_memory
from mempressure.measure.process import MeasuredProcesses, pid_namespace
from mempressure.state.node import AppReading, app_memory
from mempressure.state.node_reader import read_node
from mempressure.state.records import PROCESS_SOURCE, WorkerState
from mempressure.worker.isolated_states import isolated_states
from mempressure.worker.sampler import WorkerSampler

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MemoryView:
    """The memory at one time; sizes in bytes."""

    scopes: tuple[ScopeMemory, ...]
    worker: WorkerState
    """This process as measured now, with its isolated packages."""
    processes: MeasuredProcesses
    """The memory of the package processes that this process uses."""
    costs: Mapping[tuple[str, bool], int]
    """Memory of a package in the app's other workers, by name and whether it is isolated; then of one process."""
    used_by_others: Collection[str] = ()
    """The `processes_id` of package processes in which calls of other workers run or wait."""


class MemoryReader:
    """Measures this process and its package processes, and reads what the app's other workers published last.

    Not thread-safe.

    Args:
        configuration: names the app, its budget and the runtime directory.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._app = configuration.app
        self._configuration = configuration
        self._sampler = WorkerSampler(configuration, finder=SupervisorFinder(), cgroup=own_cgroup())
        self._once = LogOnce(__name__)

    def measure(self, isolated: Mapping[str, IsolatedPackage]) -> MemoryView:
        """Measure now; `isolated` are the packages of this process that live in processes of their own."""
        pids = {package.name: package.process_pids for package in list(isolated.values())}
        worker, memory = self._sampler.sample(pids, thorough=True)
        worker.packages = isolated_states(isolated, memory)  # processes that others share count once for the app
        others = self._others()
        scopes = []
        app = app_memory([worker, *others])
        if app is not None:
            scopes.append(ScopeMemory(f"app {self._app!r}", app.total, app.used))
        try:
            host = host_memory()
            scopes.append(ScopeMemory("the host", host.total, host.used))
            self._once.over("host")
        except MempressureError as problem:
            self._not_measured("host", problem)
        used = {each.processes_id for other in others for each in other.packages if each.active_calls}
        return MemoryView(tuple(scopes), worker, memory, _costs(others), used - {""})

    def _others(self) -> list[WorkerState]:
        try:
            reading = read_node(
                self._configuration.runtime_directory,
                on_problem=lambda problem: _log.debug("state ignored: %s", problem),
            )
        except (MempressureError, OSError) as problem:  # this process counts all the same
            self._not_measured("workers", problem)
            return []
        self._once.over("workers")
        app: AppReading | None = reading.apps.get(self._app)
        if app is None or app.uid != os.geteuid():
            return []
        own = (pid_namespace(), os.getpid())
        return [worker for worker in app.workers if (worker.pid_namespace, worker.pid) != own]

    def _not_measured(self, what: str, problem: Exception) -> None:
        self._once.warning(what, "room for loads not fully measured: reason=%s", problem)


def _costs(workers: list[WorkerState]) -> dict[tuple[str, bool], int]:
    costs: dict[tuple[str, bool], int] = {}
    for worker in workers:
        for package in worker.packages:
            key = (package.name, package.source == PROCESS_SOURCE)
            # Of several processes one: that is what the next one takes.
            taken = package.memory_bytes / max(1.0, package.loaded) if package.loaded else freeable_bytes(package)
            costs[key] = max(costs.get(key, 0), int(taken))
    return costs
