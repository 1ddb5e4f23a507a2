"""The functions that the benchmarks of calls have run in another process, whichever way."""

import os
import time

TYPE_CHECKING = False  # typing's own would load typing, and be counted as what a process holds

if TYPE_CHECKING:
    from typing import Any


def nothing() -> None:
    """Do no work: what a call costs is then all there is."""


def echo(array: "Any") -> "Any":
    """Give an array back."""
    return array


def pid() -> int:
    """Return the process id."""
    return os.getpid()


def busy() -> int:
    """Be in one call of C code that gives no other thread of the process a turn."""
    return sum(range(10**13))


def pause(seconds: float) -> None:
    """Take a time without using a core."""
    time.sleep(seconds)


def compute(count: int) -> int:
    """Use a core, in pure Python: `count` additions."""
    total = 0
    for number in range(count):
        total += number & 7
    return total


def touch_numpy() -> None:
    """Import what the arrays need, before anything is timed."""
    import numpy as np

    np.zeros(1)
