"""The successor that gunicorn starts early, the spare: the arbiter is asked for it before the old worker ends.

For an app with one worker, which otherwise serves no request while its successor boots: the longest request took 108 ms
instead of 1,672. With several workers the others serve meanwhile, and one more would cost memory where there is little;
besides, the arbiter retires the oldest, which need not be the one that was chosen.

SIGTTIN raises the arbiter's number of workers, SIGTTOU lowers it again, never below one. A file, the note, records the
request, so that another worker lowers the number if the requesting one is killed.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from mempressure.measure.process import start_ticks
from mempressure.state.records import WorkerState

SUCCESSOR_SECONDS = 45.0
"""How long the spare gets to serve; the actuator waits for a minute."""
_END_SECONDS = 3.0
"""How long a spare that came too late gets to end in order before it is killed."""
_SETTLED_SECONDS = 2.5
"""After so long without a spare none will come: the arbiter looks once a second at least."""
_POLL_SECONDS = 0.02


class Spare:
    """The spare worker of the arbiter of this process.

    Args:
        arbiter: its process id, this process' parent.
        note: where it is recorded that a spare was asked for.
        workers: returns what the app's workers published last.
    """

    def __init__(self, arbiter: int, *, note: Path, workers: Callable[[], Iterable[WorkerState]]) -> None:
        self._arbiter = arbiter
        self._note = note
        self._workers = workers

    def ask(self, going_on: Callable[[], bool]) -> bool:
        """Ask for a spare and wait until it serves; return whether this worker ends: it serves, or this ends anyway.

        Args:
            going_on: whether this worker still serves, and the arbiter is its parent.
        """
        before = self._serving()
        self._note.write_text(f"{os.getpid()} {start_ticks()}")
        self._tell(signal.SIGTTIN)
        deadline = time.monotonic() + SUCCESSOR_SECONDS
        while time.monotonic() < deadline and going_on():
            if self._serving() - before:
                return True
            time.sleep(_POLL_SECONDS)
        return not going_on()

    def retire_oldest(self) -> None:
        """Lower the number of workers again: the arbiter ends the oldest."""
        self._tell(signal.SIGTTOU)
        self._note.unlink(missing_ok=True)

    def give_up(self) -> None:
        """Lower the number of workers and end the spare, however often the arbiter has begun another meanwhile.

        The arbiter sends SIGTERM to the oldest while there is one too many: the caller must ignore SIGTERM meanwhile.
        """
        self._tell(signal.SIGTTOU)
        seen: dict[int, float] = {}
        settled = time.monotonic() + _SETTLED_SECONDS
        while time.monotonic() < settled:
            for pid in other_children(self._arbiter):
                settled = time.monotonic() + _SETTLED_SECONDS
                since = seen.setdefault(pid, time.monotonic())
                late = time.monotonic() - since >= _END_SECONDS
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
        self._note.unlink(missing_ok=True)

    def settle(self) -> None:
        """Lower the number of workers where the worker that asked for a spare was killed, once two serve."""
        try:
            asked = self._note.read_text().split()
        except FileNotFoundError:
            return
        if not _lives(asked) and len(self._serving()) > 1:
            self.retire_oldest()

    def _tell(self, number: int) -> None:
        if os.getppid() == self._arbiter:  # where it has died, another may have its number
            os.kill(self._arbiter, number)

    def _serving(self) -> set[int]:
        return {worker.pid for worker in self._workers() if worker.serving and worker.supervisor_pid == self._arbiter}


def other_children(parent: int) -> list[int]:
    """Return the other children of this process' parent.

    Raises:
        OSError: the kernel does not list them (CONFIG_PROC_CHILDREN).
    """
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in text.split() if int(pid) != os.getpid()]


def is_alone(parent: int) -> bool:
    """Return whether this process is its parent's only child, or will be in a moment: the one before may be ending."""
    deadline = time.monotonic() + _END_SECONDS
    try:
        while other_children(parent):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
    except OSError:
        return False
    return True


def _lives(asked: list[str]) -> bool:
    try:
        return start_ticks(asked[0]) == int(asked[1])
    except (ProcessLookupError, PermissionError, ValueError, IndexError):
        return False
