"""Dropping objects such that their memory returns to the kernel, and measuring how much did."""

import gc
from typing import Any

from mempressure.act import self_check
from mempressure.act.trim import release_free_pages
from mempressure.measure.process import forked_from_loaded_parent, private_bytes

MOSTLY = 0.5
"""Less than this share of what loading took, and the rest may be garbage in cycles, which only a collection frees."""
LEAST_BYTES = 1 << 20
"""For less than this no collection is made: one takes 0.1 s in a worker of a million objects."""


def reclaim(dropped: list[Any], *, expected: int) -> int:
    """Empty a list that holds the last references to objects; return by how many bytes private memory fell.

    Args:
        dropped: of what is to be freed.
        expected: bytes that it took when it was loaded: where far less comes back, garbage is collected, except in a
            worker that was forked from a loaded parent: a collection would unshare what they have in common.
    """
    before = _private_bytes()
    dropped.clear()
    # Returning free pages is part of a trim: where that is refused, it would unshare pages or does not work.
    returns_pages = not self_check.check_trim(self_check.own_system())
    if returns_pages:
        release_free_pages()
    freed = before - _private_bytes()
    if expected >= LEAST_BYTES and freed < MOSTLY * expected and not forked_from_loaded_parent():
        gc.collect()
        if returns_pages:
            release_free_pages()
        freed = before - _private_bytes()
    return max(0, freed)


def _private_bytes() -> int:
    try:
        return private_bytes()
    except OSError:  # no /proc: what cannot be measured is let go all the same
        return 0
