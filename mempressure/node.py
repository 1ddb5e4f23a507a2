"""What one machine holds: the host's memory and, from the workers' state files, every app's memory and packages.

Reading is passive: no worker is asked, so a hung one delays nobody. An app's scope is its cgroup's working set against
the tightest limit above it; where it has a budget below that limit, or no limit, the summed proportional memory of its
supervisor, workers and package hosts against the budget; with neither it has no ratio.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mempressure.directories import user_directories
from mempressure.errors import MempressureError
from mempressure.liveness import is_alive
from mempressure.memory import MemoryReading, host_memory
from mempressure.process import pid_namespace
from mempressure.state import WorkerState, state_file_names
from mempressure.state_reading import StateError, load

MAX_FILES = 1000
"""State files of one user that are read."""
MAX_READING_SECONDS = 1.0
"""Of CPU that reading one user's files may take, where 0.01 are usual: a user without measure delays nobody else."""


@dataclass(frozen=True, slots=True)
class AppReading:
    """One app: its workers, and its memory where it has a limit or a budget."""

    name: str
    uid: int
    directory: Path
    """Where its workers' sockets are."""
    workers: tuple[WorkerState, ...]
    memory: MemoryReading | None

    @property
    def used_bytes(self) -> int:
        """Return the proportional memory of everything that belongs to the app."""
        return proportional_bytes(self.workers)


@dataclass(frozen=True, slots=True)
class NodeReading:
    """The host and its apps at one time, in Unix seconds."""

    sampled: float
    host: MemoryReading
    apps: Mapping[str, AppReading]

    def memory(self, scope: str, app: str = "") -> MemoryReading | None:
        """Return the memory of the scope "host", or of one "app"; None where that has none."""
        if scope == "host":
            return self.host
        return self.apps[app].memory if app in self.apps else None


def read_node(
    runtime: Path,
    *,
    proc: str = "/proc",
    clock: Callable[[], float] = time.time,
    on_problem: Callable[[MempressureError], None],
) -> NodeReading:
    """Measure the host and read what its workers published.

    Args:
        runtime: the runtime directory; absent means no apps.
        proc: where the kernel's files are.
        clock: the time in Unix seconds.
        on_problem: told of every file that is skipped because it cannot be believed.

    Raises:
        MeasureError: the host cannot be measured.
        UnsafeDirectoryError: the runtime directory is open to others.
    """
    now = clock()
    alive = partial(is_alive, proc=proc, namespace=pid_namespace(proc=proc), now=now)
    apps = read_apps(runtime, alive=alive, on_problem=on_problem)
    return NodeReading(now, host_memory(proc=proc), apps)


def read_apps(
    runtime: Path, *, alive: Callable[[WorkerState], bool], on_problem: Callable[[MempressureError], None]
) -> dict[str, AppReading]:
    """Read what the workers published, as `read_node` does, without measuring the host.

    Args:
        runtime: the runtime directory; absent means no apps.
        alive: tells whether the worker that published a state still runs; the others are left out.
        on_problem: told of every file that is skipped because it cannot be believed.

    Raises:
        UnsafeDirectoryError: the runtime directory is open to others.
    """
    apps: dict[str, AppReading] = {}
    for uid, directory in user_directories(runtime, on_problem=on_problem):
        for name, workers in _living_workers(directory, uid, alive=alive, on_problem=on_problem).items():
            if name in apps:
                problem = f"app {name!r} of uid {uid} is ignored: the name belongs to uid {apps[name].uid}"
                on_problem(StateError(f"{problem}; set another MEMPRESSURE_APP for one of them"))
                continue
            apps[name] = AppReading(name, uid, directory, tuple(workers), app_memory(workers))
    return apps


def app_memory(workers: Iterable[WorkerState]) -> MemoryReading | None:
    """Return the memory of an app from its workers' states; None where it has neither limit nor budget."""
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
        limit, used = budget, proportional_bytes(workers)
    else:
        return None
    # A budget is a promise, not a wall: above it nothing is available and usage passes 1.
    return MemoryReading(total=limit, available=limit - used)


def proportional_bytes(workers: Iterable[WorkerState]) -> int:
    """Return the summed proportional memory of workers, their hosts and, once each, their supervisors."""
    workers = list(workers)
    supervisors: dict[tuple[str, int], WorkerState] = {}
    for worker in workers:
        process = (worker.pid_namespace, worker.supervisor_pid)
        known = supervisors.get(process)
        if known is None or worker.sampled > known.sampled:
            supervisors[process] = worker
    parts = [part for worker in workers for part in (worker.proportional_bytes, worker.hosts_bytes)]
    parts.extend(worker.supervisor_bytes for worker in supervisors.values())
    return int(sum(part for part in parts if part > 0))  # what is not known is below 0


def _living_workers(
    directory: Path, uid: int, *, alive: Callable[[WorkerState], bool], on_problem: Callable[[MempressureError], None]
) -> dict[str, list[WorkerState]]:
    apps: dict[str, list[WorkerState]] = {}
    try:
        paths = [f"{directory}/{name}" for name in state_file_names(directory)]
    except FileNotFoundError:  # its user's last worker has just ended
        return apps
    except OSError as error:
        on_problem(StateError(f"{directory} cannot be listed: {error.strerror}; chmod go+rx {directory}"))
        return apps
    if len(paths) > MAX_FILES:
        on_problem(StateError(f"{directory} has more than {MAX_FILES} state files; the others are left out"))
    began = time.thread_time()
    for path in paths[:MAX_FILES]:
        if time.thread_time() - began > MAX_READING_SECONDS:
            problem = f"{directory}: its state files take more than {MAX_READING_SECONDS:g} s of CPU to read"
            on_problem(StateError(f"{problem}; the others are left out"))
            break
        try:
            worker = load(path, owner=uid)
        except FileNotFoundError:  # it ended between the listing and the reading
            continue
        except StateError as problem:
            on_problem(problem)
            continue
        except OSError as error:
            on_problem(StateError(f"{path} cannot be read: {error.strerror}"))
            continue
        if alive(worker):
            apps.setdefault(worker.app, []).append(worker)
    return apps
