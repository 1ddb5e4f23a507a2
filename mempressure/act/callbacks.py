"""The application's `on_pressure` callbacks: what it declared to be called under pressure, and calling it."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from mempressure import units
from mempressure.config.thresholds import ALERT_LEVELS
from mempressure.decorators import kind_of_function
from mempressure.errors import ConfigurationError
from mempressure.log_once import LogOnce
from mempressure.measure.process import private_bytes

CALLBACK_SECONDS = 5.0
"""How long a callback may take before it is left behind."""

ALL_CALLBACKS_SECONDS = 10.0
"""How long they may take together: the order is waited for for 15 s at most."""

_NOISE_BYTES = 64 * 1024  # pages that other threads, and the measurement itself, take and free meanwhile
_MOST_NAME_LENGTH = 100
_MOST_LINE_LENGTH = 300

_LEVELS = tuple(ALERT_LEVELS.values())


class Called(NamedTuple):
    """What one callback brought."""

    line: str
    """A sentence for people: what it gave back, or why it failed."""
    reclaimed: int
    """By how many bytes private memory fell; 0 where it rose or cannot be measured."""


class PressureCallbacks:
    """What the application wants called under pressure, each callback at its own level and above.

    Attributes:
        failures: times that a callback failed, took too long, or was left out for it.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._callbacks: list[tuple[str, str, Callable[[str], object]]] = []
        """Level, name, and what is called with the level."""
        self._hanging: set[int] = set()
        """Identities: a callback need not be hashable."""
        self._once = LogOnce(__name__)

    def __len__(self) -> int:
        return len(self._callbacks)

    @property
    def lowest_level(self) -> str:
        """Return the lowest alert level that one is declared for; empty where there is none."""
        return min((level for level, _, _ in self._callbacks), key=_LEVELS.index, default="")

    def add(self, level: str, callback: Callable[..., object]) -> None:
        """Register a callback: called with the alert level where it takes an argument, else without.

        Raises:
            ConfigurationError: there is no such alert level, or the callback cannot be called so.
        """
        level, name = checked_level(level), _name(callback)
        self._callbacks.append((level, name, _taking_level(callback, name)))

    def after_fork(self) -> None:
        """Begin anew in a forked child: what hung in the parent does not run here."""
        self.failures = 0
        self._hanging = set()

    def call(self, level: str, *, release: Callable[[], None] = lambda: None) -> list[Called]:
        """Call what is registered for `level` or below it, one after the other; return what each brought.

        Args:
            level: the alert level now.
            release: returns free pages to the kernel: called after each, so that what it freed shows, and before the
                first, so that what was free already does not count.
        """
        called = []
        deadline = time.monotonic() + ALL_CALLBACKS_SECONDS
        release()
        before = _private_bytes()
        for own, name, callback in list(self._callbacks):
            if _LEVELS.index(own) <= _LEVELS.index(level):
                problem = self._call_one(callback, level, min(CALLBACK_SECONDS, deadline - time.monotonic()))
                release()
                after = _private_bytes()
                freed = None if before is None or after is None else _beyond_noise(before - after)
                before = after
                called.append(Called(self._line(name, problem, freed)[:_MOST_LINE_LENGTH], freed or 0))
        return called

    def _call_one(self, callback: Callable[[str], object], level: str, seconds: float) -> str:
        """Call it in a thread of its own; return what went wrong."""
        import inspect  # loaded by the declaration

        failures: list[str] = []
        if id(callback) in self._hanging:
            return "still runs since an earlier call, and was not called again"
        if seconds <= 0:
            return f"was not called: those before it took {ALL_CALLBACKS_SECONDS:g} s"

        def run() -> None:
            try:
                result = callback(level)
                if inspect.iscoroutine(result):  # of a function that was wrapped, which the declaration could not see
                    result.close()
                    failures.append("returned a coroutine, which nothing here runs")
                elif inspect.isgenerator(result) or inspect.isasyncgen(result):
                    failures.append("returned a generator, which nothing here runs")
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

    def _line(self, name: str, problem: str, freed: int | None) -> str:
        if problem:
            self.failures += 1
            text = f"on_pressure callback {name} {problem}"
            self._once.warning(name, "%s", text)
            return f"{text}; gave back {units.size(freed)}" if freed else text
        self._once.over(name)
        if freed is None:
            return f"{name} was called; what it gave back cannot be measured here"
        return f"{name} gave back {units.size(freed) if freed else 'nothing'}"


def checked_level(level: str) -> str:
    """Return an alert level's name.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if level not in _LEVELS:
        raise ConfigurationError(f"alert level {level!r} unknown; send one of {', '.join(_LEVELS)}")
    return level


def _taking_level(callback: Callable[..., object], name: str) -> Callable[[str], object]:
    """Return what calls the callback with the level where it takes an argument, else without; calls nothing itself."""
    import inspect  # 1.2 MB where nothing else loaded it: only paid where a callback is declared

    if not callable(callback):
        raise ConfigurationError(f"on_pressure callback {callback!r:.100} cannot be called; declare a function")
    if kind := kind_of_function(callback):
        scheduling = f"asyncio.run_coroutine_threadsafe({name}(level), loop) with the event loop of yours"
        raise ConfigurationError(
            f"on_pressure callback {name} is {kind}: calling it runs nothing, and where it is called there is no event "
            f"loop; declare a plain function that {f'calls {scheduling}' if 'coroutine' in kind else 'does the work'}"
        )
    try:
        parameters = inspect.signature(callback)
    except (TypeError, ValueError):
        return partial(_with_level_or_without, callback)
    for arguments in (("high",), ()):
        try:
            parameters.bind(*arguments)
        except TypeError:
            continue
        return callback if arguments else lambda _: callback()
    raise ConfigurationError(
        f"on_pressure callback {name}{parameters} is called with the alert level or without any argument, and can be "
        f"called with neither; declare {name}(level) or {name}()"
    )


def _with_level_or_without(callback: Callable[..., object], level: str) -> object:
    """Call a builtin whose signature cannot be read, such as `cache_clear` of a function with `functools.lru_cache`."""
    try:
        return callback(level)
    except TypeError as error:
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:
            raise
    return callback()  # the call itself was refused, before anything ran


def _name(callback: Callable[..., object]) -> str:
    while isinstance(callback, partial):
        callback = callback.func
    owner = getattr(getattr(callback, "__self__", None), "__qualname__", "")  # of a method of a function or a class
    name = getattr(callback, "__qualname__", None) or type(callback).__qualname__
    return (f"{owner}.{callback.__name__}" if owner else name)[:_MOST_NAME_LENGTH]


def _beyond_noise(freed: int) -> int:
    return freed if freed >= _NOISE_BYTES else 0


def _private_bytes() -> int | None:
    try:
        return private_bytes()
    except OSError:  # no smaps_rollup here
        return None
