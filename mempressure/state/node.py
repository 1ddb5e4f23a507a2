"""A reading of one node as plain data: the memory of the host and of each app, with the states of the app's workers.

An app's usage is its cgroup's working set against the tightest limit above it. Where it has a budget below that limit,
or no limit, it is the summed proportional memory of its supervisor, workers and package processes against the budget.
With neither it has no usage.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mempressure.measure.memory_reading import MemoryReading
from mempressure.state.package_processes import PackageProcesses, package_processes
from mempressure.state.records import WorkerState


@dataclass(frozen=True, slots=True)
class AppReading:
    """A reading of one app: its workers, and its memory where it has a limit or a budget."""

    name: str
    uid: int
    directory: Path
    """The directory of its workers' state files and sockets."""
    workers: tuple[WorkerState, ...]
    memory: MemoryReading | None
    counted: PackageProcesses | None = None
    """Its package processes, where they were counted already; see `package_processes`."""

    @property
    def package_processes(self) -> PackageProcesses:
        """Return the package processes of its workers, each counted once."""
        return self.counted or package_processes(self.workers)

    @property
    def used_bytes(self) -> int:
        """Return the proportional memory of all processes of the app, in bytes."""
        return proportional_bytes(self.workers, self.package_processes)


@dataclass(frozen=True, slots=True)
class NodeReading:
    """A reading of the host and its apps at one time (`sampled`, in Unix seconds)."""

    sampled: float
    host: MemoryReading
    apps: Mapping[str, AppReading]

    def memory(self, scope: str, app: str = "") -> MemoryReading | None:
        """Return the memory of the scope "host", or of one "app"; None where that has none."""
        if scope == "host":
            return self.host
        return self.apps[app].memory if app in self.apps else None


def app_memory(workers: Iterable[WorkerState], processes: PackageProcesses | None = None) -> MemoryReading | None:
    """Return the memory of an app from its workers' states; None where it has neither limit nor budget.

    `processes` are their package processes, where those were counted already.
    """
    workers = list(workers)
    budget = max((worker.budget_bytes for worker in workers), default=0)
    limited = max(
        (w for w in workers if w.cgroup_limit_bytes > 0 and w.cgroup_working_set_bytes >= 0),
        key=lambda w: w.sampled,
        default=None,
    )
    if limited is not None and not 0 < budget < limited.cgroup_limit_bytes:
        limit, used = int(limited.cgroup_limit_bytes), int(limited.cgroup_working_set_bytes)
    elif budget:
        limit, used = budget, proportional_bytes(workers, processes)
    else:
        return None
    # Nothing enforces a budget: above it `available` is negative and the usage exceeds 1.
    return MemoryReading(total=limit, available=limit - used)


def proportional_bytes(workers: Iterable[WorkerState], processes: PackageProcesses | None = None) -> int:
    """Return the summed proportional memory of workers and, once each, their package processes and supervisors.

    `processes` are the package processes, where those were counted already.
    """
    workers = list(workers)
    parts = [worker.proportional_bytes for worker in workers]
    parts.append((processes or package_processes(workers)).proportional_bytes)
    parts.extend(worker.supervisor_bytes for worker in one_per_supervisor(workers))
    return int(sum(part for part in parts if part > 0))  # unknown values are below 0


def one_per_supervisor(workers: Iterable[WorkerState]) -> Iterable[WorkerState]:
    """Return one worker of each supervisor, that which has measured it last; workers without one count as of one."""
    newest: dict[tuple[str, int], WorkerState] = {}
    for worker in workers:
        process = (worker.pid_namespace, worker.supervisor_pid)
        known = newest.get(process)
        if known is None or worker.sampled > known.sampled:
            newest[process] = worker
    return newest.values()
