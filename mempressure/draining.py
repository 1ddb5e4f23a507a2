"""Whether a worker can finish what it has before it ends: background work, and requests longer than the grace."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Grace(NamedTuple):
    """How long a supervisor lets a worker that ends finish a request."""

    seconds: float
    setting: str
    """Where that is set, for people to find: "gunicorn's graceful_timeout"."""


class BackgroundWork:
    """What the application does beside its requests, which no server waits for; for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Count the work `name` for the length of a block."""
        with self._lock:
            self._running[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[name] -= 1

    def names(self) -> list[str]:
        """Return the names of what runs now."""
        with self._lock:
            return sorted(name for name, times in self._running.items() if times > 0)

    def after_fork(self) -> None:
        """Forget, in a forked child, what the threads of its parent do."""
        self._lock = threading.Lock()
        self._running.clear()


def reason_not_to_end(*, work: Iterable[str], grace: Grace | None, longest_request: float, running: float) -> str:
    """Return why a worker told to end now would lose work; empty where it would not.

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
    if longest_request > grace.seconds:
        return (
            f"a request may take {longest_request:g} s (MEMPRESSURE_LONGEST_REQUEST), "
            f"and {grace.setting} is {grace.seconds:g} s"
        )
    if running > grace.seconds:
        return f"a request has run for {running:.0f} s already, and {grace.setting} is {grace.seconds:g} s"
    return ""
