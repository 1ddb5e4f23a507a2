"""Background work: what an application does beside its requests, during which its worker is not recycled."""

from mempressure.decorators import Block, Marks
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
        self._running: dict[str, Marks] = {}

    def running(self, name: str) -> Block:
        """Count the work `name` for the length of a block."""
        marks = self._running.setdefault(name, Marks())
        return Block(marks.add, marks.remove)

    def names(self) -> list[str]:
        """Return the names of what runs now."""
        return sorted(name for name, marks in list(self._running.items()) if len(marks))

    def after_fork(self) -> None:
        """Forget, in a forked child, what the threads of its parent do."""
        for marks in self._running.values():
            marks.clear()
