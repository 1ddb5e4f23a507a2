"""The base of supervisors (what replaces a worker when it ends), and finding a server's objects on a stack."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from mempressure.measure.reading import UNKNOWN

if TYPE_CHECKING:
    from pathlib import Path

    from mempressure.state.app_workers import AppWorkers


Grace = tuple[float, str]
"""Seconds that a supervisor lets an ending worker finish a request, and the setting: "gunicorn's graceful_timeout"."""


Work = tuple[int, float]
"""Requests or tasks under way, and when the last one ended in Unix seconds; `UNKNOWN` where that cannot be seen."""


def reason_not_to_end(*, work: Iterable[str], grace: Grace | None, longest_request: float, running: float) -> str:
    """Return why ending a worker now would lose work; empty where it would not.

    Args:
        work: names of what runs in the background.
        grace: None where requests are waited for without a limit.
        longest_request: seconds that the application says its requests take at most; 0 where it says nothing.
        running: seconds that the longest of the requests under way has taken so far.
    """
    names = ", ".join(work)
    if names:
        return f"background work is under way in it, which its end would cut: {names}"
    if grace is None:
        return ""
    seconds, setting = grace
    if longest_request > seconds:
        return f"a request may take {longest_request:g} s (MEMPRESSURE_LONGEST_REQUEST), and {setting} is {seconds:g} s"
    if running > seconds:
        return f"a request has run for {running:.0f} s already, and {setting} is {seconds:g} s"
    return ""


class Supervisor:
    """What would replace this process when it ends: nothing, unless a server's own module says more.

    Attributes:
        kind: the server's name; "" where nothing would replace it.
        pid: of the supervisor; 0 without one.
        role: of this process: worker or child; "" where no server is known.
    """

    kind = ""
    pid = 0
    role = ""

    @property
    def serving(self) -> bool:
        """Return whether this worker takes work: it has booted and is not ending."""
        return True

    @property
    def has_its_user(self) -> bool:
        """Return whether this process has the user that it is to serve as; a worker that root forked changes it."""
        return True

    @property
    def recycle_refused(self) -> str:
        """Return why recycling would lose work or bring nothing; empty where it may be done."""
        return ""

    @property
    def trim_refused(self) -> str:
        """Return why trimming would cost memory; empty where it may be done."""
        return ""

    @property
    def grace(self) -> Grace | None:
        """Return how long a request under way may still take once this worker is to end; None without a limit."""
        return None

    def running_seconds(self) -> float:
        """Return how long the longest of the requests under way has taken, as far as that can be seen; else 0."""
        return 0.0

    def work(self) -> Work:
        """Return the work under way and when the last ended, or this worker began to serve where there was none yet.

        It is asked at each tick, and again before the worker is replaced as idle.
        """
        return 0, UNKNOWN

    def at_serving(self, begin: Callable[[], None]) -> None:
        """Have `begin` called in the main thread at the moment this worker begins to take work, if it has not yet."""

    def at_end(self, leave: Callable[[], None]) -> None:
        """Have `leave` called before the process ends, where the server ends it without running `atexit`."""

    def prepare_successor(self, directory: "Callable[[], Path]", *, app_workers: "Callable[[], AppWorkers]") -> None:
        """Prepare for a successor that starts before this worker ends, where the supervisor needs that.

        Args:
            directory: returns the user's runtime directory.
            app_workers: reads the app's workers.
        """

    def settle(self) -> None:
        """Undo what a worker left behind that was killed during its replacement; called at each tick."""

    def retire(self) -> bool:
        """Tell the server to finish what it has and end; its supervisor starts a successor.

        Return whether it will end; False where it goes on serving.
        """
        terminate()
        return True


def terminate() -> None:
    """Send SIGTERM to this process' main thread, so that it wakes from its wait at once."""
    identity = threading.main_thread().ident
    if identity is None or identity not in _frames():
        os.kill(os.getpid(), signal.SIGTERM)  # under gevent the main thread's identity is a greenlet's
    else:
        signal.pthread_kill(identity, signal.SIGTERM)


def main_thread_frames() -> Iterator[FrameType]:
    """Return the frames of the main thread, the innermost first."""
    identity = threading.main_thread().ident
    frame = _frames().get(identity) if identity is not None else None
    if frame is None:
        frame = _main_greenlet_frame()
    while frame is not None:
        yield frame
        frame = frame.f_back


def find_on_main_thread(module_name: str, class_name: str, *names: str) -> Any:
    """Return the first instance of a class that a local variable on the main thread's stack holds; None without one.

    Args:
        module_name: where the class is; nothing is found, and nothing imported, where this has not been imported.
        class_name: of the class, or of a base.
        names: of the variables to look at, "self" by default.
    """
    module = sys.modules.get(module_name)
    kind = getattr(module, class_name, None)  # absent while the module is being imported
    if kind is None:
        return None
    for frame in main_thread_frames():
        for name in names or ("self",):
            if name in frame.f_code.co_varnames and isinstance(value := frame.f_locals.get(name), kind):
                return value
    return None


def _frames() -> dict[int, FrameType]:
    return sys._current_frames()  # noqa: SLF001 -- documented in the sys module


def _main_greenlet_frame() -> FrameType | None:
    """Return where the main greenlet waits, under gevent, which runs what believes to be a thread as a greenlet."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return None
    current = main = greenlet.getcurrent()
    while main.parent is not None:
        main = main.parent
    frame: FrameType | None = sys._getframe() if main is current else main.gr_frame  # noqa: SLF001 -- as above
    return frame
