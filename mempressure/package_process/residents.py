"""Residents and caches inside a package process: loaded once, and kept for as long as the process lives.

Nothing lets them go but their own `release`: the process ends when it is idle, with all that it holds. The whole of
`mempressure.residents` would cost each package process 3 MiB.
"""

import functools
import threading
from collections import namedtuple

TYPE_CHECKING = False  # typing's own would load typing

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

Released = namedtuple("Released", ("reclaimed_bytes", "skipped_reason"))  # noqa: PYI024 - typing's own loads typing
"""As `mempressure.residents.unit.Released`; here nothing is measured."""


class ResidentInside:
    """A function without arguments whose result is kept for its next calls; see `LazyLoader.resident`."""

    def __init__(self, function: "Callable[[], Any]") -> None:
        self._lock = threading.RLock()
        self._slot: list[Any] = []
        functools.update_wrapper(self, function, updated=())

    def __call__(self) -> "Any":
        """Return the object, loaded by the first call; raises what loading it raises."""
        with self._lock:
            if not self._slot:
                self._slot = [self.__wrapped__()]  # type: ignore[attr-defined] # update_wrapper sets it
            return self._slot[0]

    @property
    def loaded(self) -> bool:
        """Return whether the object is there now."""
        return bool(self._slot)

    def release(self) -> Released:
        """Let the object go; the next call loads it again."""
        with self._lock:
            reason, slot = None if self._slot else "not loaded", self._slot
            self._slot = []
        del slot  # without the lock: it may run finalizers
        return Released(0, reason)


def resident(function: "Callable[[], Any] | None" = None, /, **_options: "Any") -> "Any":
    """Declare a resident; see `LazyLoader.resident`."""
    return ResidentInside if function is None else ResidentInside(function)


def cache(
    function: "Callable[..., Any] | None" = None,
    /,
    *,
    maxsize: int | None = 128,
    typed: bool = False,
    **_options: "Any",
) -> "Any":
    """Declare a cache, here the standard library's; see `LazyLoader.cache`."""

    def decorate(function: "Callable[..., Any]") -> "Any":
        cached: Any = functools.lru_cache(maxsize, typed)(function)

        def release() -> Released:
            cached.cache_clear()
            return Released(0, None)

        cached.release = release
        return cached

    return decorate if function is None else decorate(function)
