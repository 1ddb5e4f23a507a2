"""The cost of one load: the seconds that it took, and the bytes that it added, without those of loads within it."""

import threading
import time
from typing import Self

from mempressure.measure.process import anonymous_bytes


class LoadCost:
    """Measures a `with` block; what other threads allocate meanwhile is counted with it.

    Attributes:
        seconds: that it took, those of loads within it included.
        growth: bytes by which anonymous memory grew, those of other `LoadCost` blocks within it not counted; negative
            where it fell.
    """

    def __enter__(self) -> Self:
        self._outer_inner: int = getattr(_local, "inner", 0)
        _local.inner = 0
        self._before = _held_bytes()
        self._began = time.perf_counter()
        self.seconds, self.growth = 0.0, 0
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        added = _held_bytes() - self._before
        self.growth = added - _local.inner
        _local.inner = self._outer_inner + added


_local = threading.local()


def _held_bytes() -> int:
    try:
        return anonymous_bytes()
    except OSError:  # no /proc: a load must not fail because it cannot be measured
        return 0
