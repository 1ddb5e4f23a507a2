"""The functions that the benchmark of calls has run in another process, whichever way."""

import os
from typing import Any


def nothing() -> None:
    """Do no work: what a call costs is then all there is."""


def echo(array: Any) -> Any:
    """Give an array back."""
    return array


def pid() -> int:
    """Return the process id."""
    return os.getpid()


def busy() -> int:
    """Be in one call of C code that gives no other thread of the process a turn."""
    return sum(range(10**13))


def touch_numpy() -> None:
    """Import what the arrays need, before anything is timed."""
    import numpy as np

    np.zeros(1)
