"""How far a long command has come: a bar on a terminal, plain lines elsewhere; always on standard error."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from mempressure.errors import MempressureError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress


class MissingLibraryError(MempressureError):
    """A library that shows things on a terminal is not installed."""


class Progress(Protocol):
    """Receives how far each of several tasks has come."""

    def step(self, task: str, share: float, doing: str) -> None:
        """Note that a share of 0 to 1 of a task is done, and what comes now."""

    def finished(self, task: str) -> None:
        """Note that a task is over, however it ended."""

    def say(self, message: str) -> None:
        """Say something besides."""


def console(*, stderr: bool = False) -> "Console":
    """Return a console that prints to standard output or error.

    Raises:
        MissingLibraryError: rich is not installed.
    """
    try:
        from rich.console import Console
    except ImportError:
        raise MissingLibraryError(
            "this prints with rich, which is not installed; pip install 'mempressure[cli]', or send --json"
        ) from None
    return Console(stderr=stderr, highlight=False, soft_wrap=False)


@contextmanager
def progress(tasks: Sequence[str], *, quiet: bool = False) -> Iterator[Progress]:
    """Show the progress of tasks for the length of a block.

    Raises:
        MissingLibraryError: rich is not installed, and it is not to be quiet.
    """
    if quiet:
        yield _Quiet()
        return
    terminal = console(stderr=True)
    if not terminal.is_terminal:
        yield _Lines()
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.fields[package]}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[doing]}"),
    )
    with RichProgress(*columns, console=terminal, transient=True) as bars:
        yield _Bars(bars, tasks)


class _Quiet:
    def step(self, task: str, share: float, doing: str) -> None:
        """Show nothing."""

    def finished(self, task: str) -> None:
        """Show nothing."""

    def say(self, message: str) -> None:
        sys.stderr.write(f"{message}\n")


class _Lines(_Quiet):
    """A line whenever something else begins."""

    def __init__(self) -> None:
        self._last = ""

    def step(self, task: str, share: float, doing: str) -> None:
        line = f"{task}: {doing}"
        if line != self._last and share < 1:
            self._last = line
            self.say(line)


class _Bars:
    def __init__(self, bars: "RichProgress", tasks: Sequence[str]) -> None:
        self._bars = bars
        self._tasks = {
            task: bars.add_task("", total=1.0, start=False, package=_shortened(task), doing="") for task in tasks
        }

    def step(self, task: str, share: float, doing: str) -> None:
        self._bars.start_task(self._tasks[task])
        self._bars.update(self._tasks[task], completed=share, doing=doing)

    def finished(self, task: str) -> None:
        self._bars.start_task(self._tasks[task])
        self._bars.update(self._tasks[task], completed=1.0, doing="")
        self._bars.stop_task(self._tasks[task])

    def say(self, message: str) -> None:
        self._bars.console.print(message, markup=False)


def _shortened(name: str, most: int = 20) -> str:
    return name if len(name) <= most else f"{name[: most - 3]}..."
