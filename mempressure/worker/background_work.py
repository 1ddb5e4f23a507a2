"""Background work: what an application does beside its requests, during which its worker is not recycled."""

import threading
from collections import Counter
from functools import partial

from mempressure.decorators import Block
from mempressure.errors import ConfigurationError

MOST_WORK_NAME_LENGTH = 100


def checked_work_name(name: str) -> str:
    """Return the name of background work, which the refusal to end its worker quotes.

    Raises:
        ConfigurationError: it is empty, too long or cannot be printed.
    """
    if not 0 < len(name) <= MOST_WORK_NAME_LENGTH or not name.isprintable():
        raise ConfigurationError(
            f"name={name!r:.120} of background work cannot be used; "
            f"send a text of 1 to {MOST_WORK_NAME_LENGTH} printable characters"
        )
    return name


class BackgroundWork:
    """What the application does beside its requests, which no server waits for; for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def running(self, name: str) -> Block:
        """Count the work `name` for the length of a block."""
        return Block(partial(self._count, name, 1), partial(self._count, name, -1))

    def names(self) -> list[str]:
        """Return the names of what runs now."""
        with self._lock:
            return sorted(name for name, times in self._running.items() if times > 0)

    def after_fork(self) -> None:
        """Forget, in a forked child, what the threads of its parent do."""
        self._lock = threading.Lock()
        self._running.clear()

    def _count(self, name: str, change: int) -> None:
        with self._lock:
            self._running[name] += change
