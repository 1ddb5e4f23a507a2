"""Trimming this process: application callbacks, a garbage collection, and the C library's free pages."""

import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from mempressure.config.thresholds import ALERT_LEVELS
from mempressure.errors import ConfigurationError
from mempressure.log_once import LogOnce
from mempressure.measure.process import process_memory

CALLBACK_SECONDS = 5.0
"""How long a callback may take before the trim goes on without it."""

ALL_CALLBACKS_SECONDS = 10.0
"""How long they may take together: the order is waited for for 15 s at most."""

_LEVELS = tuple(ALERT_LEVELS.values())


class PressureCallbacks:
    """What the application wants called under pressure: `(level)`, at its own level and above.

    Attributes:
        failures: times that a callback failed, took too long, or was left out for it.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._callbacks: list[tuple[str, Callable[[str], object]]] = []
        self._hanging: set[int] = set()
        """Identities: a callback need not be hashable."""
        self._once = LogOnce(__name__)

    def add(self, level: str, callback: Callable[[str], object]) -> None:
        """Register a callback.

        Raises:
            ConfigurationError: there is no such alert level.
        """
        self._callbacks.append((checked_level(level), callback))

    def after_fork(self) -> None:
        """Begin anew in a forked child: what hung in the parent does not run here."""
        self.failures = 0
        self._hanging = set()

    def call(self, level: str) -> list[str]:
        """Call what is registered for `level` or below it; return a line for each that failed or hangs."""
        problems = []
        deadline = time.monotonic() + ALL_CALLBACKS_SECONDS
        for own, callback in list(self._callbacks):
            if _LEVELS.index(own) <= _LEVELS.index(level):
                problem = self._call_one(callback, level, min(CALLBACK_SECONDS, deadline - time.monotonic()))
                if problem:
                    problems.append(self._failed(_name(callback), problem))
                else:
                    self._once.over(_name(callback))
        return problems

    def _call_one(self, callback: Callable[[str], object], level: str, seconds: float) -> str:
        """Call it in a thread of its own; return what went wrong."""
        failures: list[str] = []
        if id(callback) in self._hanging:
            return "still runs since an earlier trim, and was not called again"
        if seconds <= 0:
            return f"was not called: those before it took {ALL_CALLBACKS_SECONDS:g} s"

        def run() -> None:
            try:
                callback(level)
            except BaseException as error:  # noqa: BLE001 -- the application's code, SystemExit too: contained and reported
                failures.append(f"failed: {type(error).__name__}: {error}")
            finally:
                self._hanging.discard(id(callback))

        thread = threading.Thread(target=run, name="mempressure-callback", daemon=True)
        self._hanging.add(id(callback))
        try:
            thread.start()
        except RuntimeError as error:  # no thread to be had
            self._hanging.discard(id(callback))
            return f"was not called: {error}"
        thread.join(seconds)
        if thread.is_alive():
            return f"still runs after {seconds:.2g} s; not called again until it ends"
        return failures[0] if failures else ""

    def _failed(self, name: str, problem: str) -> str:
        self.failures += 1
        text = f"on_pressure callback {name} {problem}"
        self._once.warning(name, "%s", text)
        return text


def _name(callback: Callable[[str], object]) -> str:
    return getattr(callback, "__qualname__", None) or type(callback).__qualname__


class Trimmed(NamedTuple):
    """What a trim brought; sizes in bytes."""

    freed: int
    """By how much private memory fell; negative where it rose."""
    unshared: int
    """How much of that rise is pages that were shared with another process before."""
    problems: list[str]
    """Of callbacks, a line each."""


def checked_level(level: str) -> str:
    """Return an alert level's name.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if level not in _LEVELS:
        raise ConfigurationError(f"alert level {level!r} unknown; send one of {', '.join(_LEVELS)}")
    return level


def trim(callbacks: PressureCallbacks | None, *, level: str, call: bool = True) -> Trimmed:
    """Give back garbage; `call` the application's callbacks first, if it has any.

    Raises:
        OSError: the process' memory cannot be measured.
    """
    before = process_memory()
    problems = callbacks.call(level) if call and callbacks is not None else []
    gc.collect()
    release_free_pages()
    after = process_memory()
    # A request may allocate meanwhile, and a process that shared the pages end: only both together is unsharing.
    unshared = max(0, min(after.private - before.private, before.shared - after.shared))
    return Trimmed(before.private - after.private, unshared, problems)


def release_free_pages() -> None:
    """Have the C library return its free pages to the kernel; does nothing where that is not glibc."""
    if sys.platform.startswith("linux"):
        import ctypes  # 0.2 MB where nothing else loaded it: only paid where a trim was ordered

        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if malloc_trim is not None:
            malloc_trim(0)
