"""Plain values for measurements: memory and pressure of one scope, and the number that means "not known"."""

from typing import NamedTuple

UNKNOWN = -1.0
"""Stands for a number that is not known: a package never used, a cgroup without a limit."""

CLOCK_SET_BACK_SECONDS = 10.0
"""A time that lies further in the future than this was recorded before the clock was set back."""


class MemoryReading(NamedTuple):
    """Memory of one scope in bytes. *Used* is total - available, which differs from psutil's `used`."""

    total: int
    available: int
    swap_total: int = 0
    swap_free: int = 0

    @property
    def used(self) -> int:
        """Return total - available, in bytes."""
        return self.total - self.available

    @property
    def usage(self) -> float:
        """Return used / total, a ratio; 0 where there is no total."""
        return self.used / self.total if self.total else 0.0

    @property
    def swap_used(self) -> int:
        """Return the swap in use, in bytes."""
        return self.swap_total - self.swap_free

    @property
    def swap_usage(self) -> float:
        """Return swap used / total, a ratio; 0 where there is no swap."""
        return self.swap_used / self.swap_total if self.swap_total else 0.0


class PressureReading(NamedTuple):
    """Pressure stall information: seconds, since boot, in which some or all tasks waited for memory."""

    waiting_seconds: float
    stalled_seconds: float
