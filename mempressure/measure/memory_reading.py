"""Memory of one scope (the host, an app, a cgroup) as it was measured, in bytes."""

from typing import NamedTuple

SHOW_SECONDS = 2.0
"""How long freed memory may take to show in a measurement (a cgroup's counters lag)."""


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
