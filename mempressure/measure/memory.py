"""Memory of the host, from `/proc/meminfo` and `/proc/pressure/memory`; from psutil where there is no `/proc`."""

import os
import sys

from mempressure.errors import MempressureError
from mempressure.measure.reading import MemoryReading, PressureReading


class MeasureError(MempressureError, OSError):
    """A file that a measurement needs is missing or does not read as expected."""


_MEMINFO_STARTS = {
    name: f"\n{name}:".encode() for name in ("MemTotal", "MemFree", "MemAvailable", "Cached", "SwapTotal", "SwapFree")
}
"""The beginning of the line of each field that is read."""


def host_memory(*, proc: str = "/proc") -> MemoryReading:
    """Measure the host.

    Raises:
        MeasureError: `meminfo` is missing or lacks a field, or psutil is needed and not installed.
    """
    if not sys.platform.startswith("linux") and proc == "/proc":
        return _host_memory_by_psutil()
    path = f"{proc}/meminfo"
    fields = _meminfo(path)
    try:
        total = fields["MemTotal"]
        # Before Linux 3.14 there is no MemAvailable; free and page cache come nearest.
        if (available := fields.get("MemAvailable", -1)) < 0:
            available = fields["MemFree"] + fields.get("Cached", 0)
    except KeyError as error:
        raise MeasureError(f"{path} has no {error.args[0]}; is {proc} a proc file system?") from None
    swap_total = fields.get("SwapTotal", 0)
    return MemoryReading(
        total=total,
        # In some containers the two come from different sources.
        available=min(available, total),
        swap_total=swap_total,
        swap_free=min(fields.get("SwapFree", 0), swap_total),
    )


def pressure(path: str) -> PressureReading | None:
    """Read a PSI file (`/proc/pressure/memory`, or a cgroup's `memory.pressure`); None where the kernel has none.

    Raises:
        MeasureError: the file exists and is not in the format of PSI.
    """
    try:
        text = _contents(path, 1024)
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


def _meminfo(path: str) -> dict[str, int]:
    try:
        text = b"\n" + _contents(path, 16384)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        folder = os.path.dirname(path)
        raise MeasureError(f"{path} cannot be read: {reason}; is {folder} a proc file system?") from error
    fields = {}
    for name, start in _MEMINFO_STARTS.items():  # searching for six lines takes half the time of parsing all fifty
        number = text.partition(start)[2].partition(b"\n")[0].split()
        if number and number[0].isdigit():
            fields[name] = int(number[0]) * (1024 if number[-1] == b"kB" else 1)
    return fields


def _contents(path: str, size: int) -> bytes:
    # Not `open`, which takes 4 us of the 20: each scrape and each turn of the control loop reads both files.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def _host_memory_by_psutil() -> MemoryReading:
    try:
        import psutil
    except ImportError:
        raise MeasureError("measuring the host needs psutil on this platform: pip install psutil") from None
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return MemoryReading(memory.total, memory.available, swap.total, swap.free)
