"""Liveness of workers that published a state, and removal of the files that killed workers left.

Separate from `mempressure.state.node_reader`, which reads all workers: a worker's own agent needs no more than this.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mempressure.config.paths import file_stem
from mempressure.measure.process import pid_namespace, start_ticks
from mempressure.state.files import state_files
from mempressure.state.records import WorkerState

FRESH_SECONDS = 10.0
"""Age up to which a state counts whose worker cannot be looked up, as in another container."""


STALE_SECONDS = 300.0
"""Age of a file from which its worker counts as gone: workers write their state each second. A worker that was only
stopped (SIGSTOP) creates its files again."""


_BESIDE_THE_STATE = (".sock", ".new", ".spare")
"""Suffixes: a worker's socket, a file that it was writing, an arbiter's note (`act.supervisors.gunicorn_successor`)."""


def is_alive(worker: WorkerState, *, proc: str = "/proc", namespace: str | None = None, now: float) -> bool:
    """Return whether the process that published this state still runs.

    Where it cannot be looked up, since it is in another PID namespace or hidden, a fresh state counts as alive.

    Args:
        worker: the state that it published.
        proc: where proc is mounted.
        namespace: the PID namespace of that `/proc`, where it is known already.
        now: the time in Unix seconds.
    """
    # The absolute value: after the clock was set back, states from the future must not count until it has caught up.
    fresh = abs(now - worker.sampled) < FRESH_SECONDS
    if worker.pid_namespace != (pid_namespace(proc=proc) if namespace is None else namespace):
        return fresh
    try:
        return start_ticks(worker.pid, proc=proc) == worker.start_ticks
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, and /proc is mounted with hidepid
        return fresh


def remove_dead(directory: Path, *, clock: Callable[[], float] = time.time) -> None:
    """Remove the files of killed workers from this user's runtime directory.

    Workers of another PID namespace cannot be looked up: their files are removed by age. So are sockets without a state
    file, and files that were being written. A file that cannot be read as a state is left for people to look at.
    """
    now, namespace = clock(), pid_namespace()
    for path in state_files(directory):
        from mempressure.state.reader import StateError, load  # 25 KB that the first worker of a user does not need

        try:
            worker = load(path, owner=os.geteuid())
        except (StateError, OSError):
            continue
        here = worker.pid_namespace == namespace
        if not is_alive(worker, now=worker.sampled) if here else _is_stale(path, now):
            _remove(path, path.with_suffix(".sock"))
    for path in directory.iterdir():
        if path.suffix not in _BESIDE_THE_STATE or path.with_suffix(".state").exists():
            continue
        stem = path.name.strip(".").partition(".")[0]
        pid = stem.partition("-")[0]
        here = pid.isdecimal() and stem == file_stem(int(pid), namespace)
        lives = here and os.path.exists(f"/proc/{pid}")
        if (here and not lives) or (_is_stale(path, now) and not (lives and path.suffix == ".spare")):
            _remove(path)


def _is_stale(path: Path, now: float) -> bool:
    try:
        return abs(now - os.lstat(path).st_mtime) > STALE_SECONDS
    except FileNotFoundError:
        return False


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)
