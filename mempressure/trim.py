"""Giving back what is garbage already: application callbacks, a garbage collection, and the C library's free pages."""

import gc
import sys
import threading
from collections.abc import Callable

from mempressure.errors import ConfigurationError
from mempressure.process import private_bytes
from mempressure.thresholds import ALERT_LEVELS

CALLBACK_SECONDS = 5.0
"""How long a callback may take before the trim goes on without it."""

_LEVELS = tuple(ALERT_LEVELS.values())


class PressureCallbacks:
    """What the application wants called under pressure: `(level)`, at its own level and above."""

    def __init__(self) -> None:
        self._callbacks: list[tuple[str, Callable[[str], object]]] = []
        self._hanging: set[int] = set()
        """Identities: a callback need not be hashable."""

    def add(self, level: str, callback: Callable[[str], object]) -> None:
        """Register a callback.

        Raises:
            ConfigurationError: there is no such alert level.
        """
        self._callbacks.append((checked_level(level), callback))

    def call(self, level: str) -> list[str]:
        """Call what is registered for `level` or below it; return a line for each that failed or hangs."""
        problems = []
        for own, callback in self._callbacks:
            if _LEVELS.index(own) <= _LEVELS.index(level) and id(callback) not in self._hanging:
                problem = self._call_one(callback, level)
                if problem:
                    problems.append(problem)
        return problems

    def _call_one(self, callback: Callable[[str], object], level: str) -> str | None:
        failures: list[str] = []

        def run() -> None:
            try:
                callback(level)
            except Exception as error:  # noqa: BLE001 -- the application's code; its failure is contained and told
                failures.append(f"{type(error).__name__}: {error}")
            finally:
                self._hanging.discard(id(callback))

        thread = threading.Thread(target=run, name="mempressure-callback", daemon=True)
        self._hanging.add(id(callback))
        thread.start()
        thread.join(CALLBACK_SECONDS)
        name = getattr(callback, "__qualname__", repr(callback))
        if thread.is_alive():
            return (
                f"on_pressure callback {name} still runs after {CALLBACK_SECONDS:g} s; not called again until it ends"
            )
        return f"on_pressure callback {name} failed: {failures[0]}" if failures else None


def checked_level(level: str) -> str:
    """Return an alert level's name.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if level not in _LEVELS:
        raise ConfigurationError(f"alert level {level!r} unknown; send one of {', '.join(_LEVELS)}")
    return level


def trim(callbacks: PressureCallbacks, *, level: str) -> tuple[int, list[str]]:
    """Give back garbage; return the private bytes that are really gone (negative: memory grew) and problems."""
    before = private_bytes()
    problems = callbacks.call(level)
    gc.collect()
    release_free_pages()
    return before - private_bytes(), problems


def release_free_pages() -> None:
    """Have the C library return its free pages to the kernel; does nothing where that is not glibc."""
    if sys.platform.startswith("linux"):
        import ctypes  # 0.2 MB where nothing else loaded it: only paid where a trim was ordered

        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if malloc_trim is not None:
            malloc_trim(0)
