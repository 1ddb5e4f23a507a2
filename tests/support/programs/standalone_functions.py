"""What the processes of test_standalone run: functions of isolated packages that keep memory.

There are several, since a package that is loaded again soon after it was unloaded is left alone for longer.
"""

from mempressure import get_lazy_loader

MIB = 150
PACKAGES = ("statistics", "fractions", "calendar", "colorsys", "sched")
_kept: list[bytearray] = []


def keep() -> int:
    """Keep memory until the package's process ends."""
    _kept.append(bytearray(b"x") * (MIB << 20))
    return len(_kept)


statistics, fractions, calendar, colorsys, sched = (
    get_lazy_loader().isolated(package, timeout=1.0)(keep) for package in PACKAGES
)
