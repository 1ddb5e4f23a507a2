"""Whether a worker that published a state still runs, and removing what those left that were killed.

Apart from `mempressure.node`, which reads everybody's: a worker's own agent needs no more than this.
"""

import os
from contextlib import suppress
from pathlib import Path

from mempressure import state
from mempressure.process import start_ticks
from mempressure.state import StateError, WorkerState

FRESH_SECONDS = 10.0
"""How long the last word of a worker whose process cannot be looked up (another container's) is believed."""


def is_alive(worker: WorkerState, *, proc: str = "/proc", now: float) -> bool:
    """Return whether the process that published this state still runs, as far as one can see from here."""
    # A clock that was set back must not keep the dead alive until it catches up: hence the absolute value.
    fresh = abs(now - worker.sampled) < FRESH_SECONDS
    if worker.pid_namespace != pid_namespace(proc=proc):
        return fresh
    try:
        return start_ticks(worker.pid, proc=proc) == worker.start_ticks
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, and /proc is mounted with hidepid
        return fresh


def remove_dead(directory: Path) -> None:
    """Remove the state files and sockets of workers that were killed before they could, in one's own directory.

    A file that cannot be read as a state is left for people to look at.
    """
    for path in state.state_files(directory):
        try:
            worker = state.load(path, owner=os.geteuid())
        except (StateError, OSError):
            continue
        if worker.pid_namespace == pid_namespace() and not is_alive(worker, now=worker.sampled):
            for leftover in (path, path.with_suffix(".sock")):
                with suppress(FileNotFoundError):
                    os.unlink(leftover)
    for note in directory.glob("*.spare"):  # see `mempressure.supervisors.spare`
        if not os.path.exists(f"/proc/{note.stem}"):
            note.unlink(missing_ok=True)


def pid_namespace(*, proc: str = "/proc") -> str:
    """Return the name of this process' PID namespace; empty where the kernel does not tell."""
    try:
        return os.readlink(f"{proc}/self/ns/pid")
    except OSError:
        return ""
