"""Pressure stall information (PSI): how long tasks waited for memory, on the host or in a cgroup."""

import os

from mempressure.errors import MempressureError
from mempressure.record import Record


class MeasureError(MempressureError, OSError):
    """A file that a measurement needs is missing or does not read as expected."""


class PressureReading(Record):
    """Pressure stall information: seconds, since boot, in which some or all tasks waited for memory."""

    waiting_seconds: float
    stalled_seconds: float


def pressure(path: str) -> PressureReading | None:
    """Read a PSI file (`/proc/pressure/memory`, or a cgroup's `memory.pressure`); None where the kernel has none.

    Raises:
        MeasureError: the file exists and is not in the format of PSI.
    """
    try:
        text = contents(path, 1024)
    except OSError:  # absent, or CONFIG_PSI_DEFAULT_DISABLED answers EOPNOTSUPP
        return None
    totals = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(b" ")
        _, found, number = rest.rpartition(b"total=")
        if not found or not number.isdigit():
            raise MeasureError(f"{path}: {line!r:.80} is not a PSI line")
        totals[kind] = int(number) / 1e6  # the kernel counts microseconds
    if b"some" not in totals:
        raise MeasureError(f"{path} has no line 'some': it is not a PSI file")
    return PressureReading(totals.get(b"some", 0.0), totals.get(b"full", 0.0))


def contents(path: str, size: int) -> bytes:
    """Return the first `size` bytes of a file of the kernel."""
    # Not `open`, which takes 4 us of the 20: each scrape and each turn of the control loop reads both files.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)
