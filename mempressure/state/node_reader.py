"""Reads one node: measures the host, and reads the state files of all workers into apps.

Workers take no part in it, so a hung one delays no reader.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mempressure.config.user_directories import user_directories
from mempressure.errors import MempressureError
from mempressure.measure.memory import host_memory
from mempressure.measure.process import pid_namespace
from mempressure.state.files import state_file_names
from mempressure.state.liveness import is_alive
from mempressure.state.node import AppReading, NodeReading, app_memory
from mempressure.state.package_processes import package_processes
from mempressure.state.reader import StateError, load
from mempressure.state.records import WorkerState

MAX_FILES = 1000
"""Most state files of one user that are read."""


MAX_READING_SECONDS = 1.0
"""CPU time for reading one user's files, where 0.01 s is usual: caps the cost of one user's files."""


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
        proc: where proc is mounted.
        clock: returns the time in Unix seconds.
        on_problem: called for every file that is skipped because it is invalid or not trusted.

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
    """Read the apps as `read_node` does, without measuring the host.

    Args:
        runtime: the runtime directory; absent means no apps.
        alive: returns whether the worker that published a state still runs; the others are left out.
        on_problem: called for every file that is skipped because it is invalid or not trusted.

    Raises:
        UnsafeDirectoryError: the runtime directory is open to others.
    """
    apps: dict[str, AppReading] = {}
    for uid, directory in user_directories(runtime, on_problem=on_problem):
        for name, workers in _live_workers(directory, uid, alive=alive, on_problem=on_problem).items():
            if name in apps:
                problem = f"app {name!r} of uid {uid} is ignored: the name belongs to uid {apps[name].uid}"
                on_problem(StateError(f"{problem}; set another MEMPRESSURE_APP for one of them"))
                continue
            processes = package_processes(workers)
            memory = app_memory(workers, processes)
            apps[name] = AppReading(name, uid, directory, tuple(workers), memory, processes)
    return apps


def _live_workers(
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
