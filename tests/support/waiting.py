"""How tests wait: for a condition, with a deadline, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_PAUSE_SECONDS = 0.01


def until(condition: Callable[[], T], what: str | Callable[[], str], *, seconds: float = 10.0) -> T:
    """Return what `condition()` returns, once that is true; fail after `seconds`.

    Args:
        condition: asked again and again.
        what: what is waited for, for the message; a function that tells where more is known only afterwards.
        seconds: the deadline.
    """
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what if isinstance(what, str) else what()}")
        time.sleep(_PAUSE_SECONDS)
    return result
