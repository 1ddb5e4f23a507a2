"""Whether a worker that published a state still runs, and removing what those left that were killed.

Apart from `mempressure.state.node`, which reads everybody's: a worker's own agent needs no more than this.
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
"""How long the last word of a worker whose process cannot be looked up (another container's) is believed."""


STALE_SECONDS = 300.0
"""A worker writes its state each second: what is older than this, by the file's time, was left by one that is gone.
One that was only stopped makes its files anew."""


_BESIDE_THE_STATE = (".sock", ".new", ".spare")
"""A worker's socket, a file that it was writing, and an arbiter's note (`act.supervisors.gunicorn_successor`)."""


def is_alive(worker: WorkerState, *, proc: str = "/proc", namespace: str | None = None, now: float) -> bool:
    """Return whether the process that published this state still runs, as far as one can see from here.

    Args:
        worker: what it published.
        proc: where the kernel's files are.
        namespace: the PID namespace of that `/proc`, where it is known already.
        now: Unix seconds.
    """
    # A clock that was set back must not keep the dead alive until it catches up: hence the absolute value.
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
    """Remove, in one's own directory, what workers left that were killed before they could.

    Whoever lived in another PID namespace cannot be looked up from here: their files go by age. So do sockets without a
    state, and what was being written. A file that cannot be read as a state is left for people to look at.
    """
    now, namespace = clock(), pid_namespace()
    for path in state_files(directory):
        from mempressure.state.reader import StateError, load  # 25 KB that the first worker of a user need not pay

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
