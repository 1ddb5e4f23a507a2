"""Backing off after refaults: packages that were loaded again soon after they were unloaded.

A *level* counts a package's refaults and falls by one every ten minutes. Each whole level doubles the time for which
the package must be unused to be unloaded. Times are passed in.
"""

from typing import Final

REFAULT_SECONDS: Final = 60.0
"""A package that is loaded again within this many seconds of its unloading was unloaded too early."""

DECAY_SECONDS: Final = 600.0
"""In this many seconds a level falls by one."""

HIGHEST_LEVEL: Final = 5.0
"""At most 32 times as long."""


def is_refault(unloaded: float, loaded: float, *, window: float = REFAULT_SECONDS) -> bool:
    """Return whether a load came within `window` seconds of the last unloading; both in Unix seconds."""
    return loaded - unloaded < window


def decayed(level: float, seconds: float) -> float:
    """Return what is left of a level after some seconds; a clock that was set back takes nothing away."""
    return max(0.0, level - max(0.0, seconds) / DECAY_SECONDS)


def raised(level: float, seconds: float) -> float:
    """Return the level at a refault that comes some seconds after the one before."""
    return min(HIGHEST_LEVEL, decayed(level, seconds) + 1.0)


def factor(level: float) -> float:
    """Return how many times as long a package at this level must be unused: 1 at level 0, doubled by each level."""
    return float(2.0 ** min(HIGHEST_LEVEL, max(0.0, level)))
