"""Trimming this process: a garbage collection, and the C library's free pages."""

import gc
import sys
from typing import NamedTuple

from mempressure.measure.process import process_memory


class Trimmed(NamedTuple):
    """What a trim brought; sizes in bytes."""

    freed: int
    """By how much private memory fell; negative where it rose."""
    unshared: int
    """How much of that rise is pages that were shared with another process before."""


def trim() -> Trimmed:
    """Give back garbage.

    Raises:
        OSError: the process' memory cannot be measured.
    """
    before = process_memory()
    gc.collect()
    release_free_pages()
    after = process_memory()
    # A request may allocate meanwhile, and a process that shared the pages end: only both together is unsharing.
    unshared = max(0, min(after.private - before.private, before.shared - after.shared))
    return Trimmed(before.private - after.private, unshared)


def release_free_pages() -> None:
    """Have the C library return its free pages to the kernel; does nothing where that is not glibc."""
    if sys.platform.startswith("linux"):
        import ctypes  # 0.2 MB where nothing else loaded it: only paid where a trim was ordered

        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if malloc_trim is not None:
            malloc_trim(0)
