"""Memory of the host, from `/proc/meminfo`; from psutil where there is no `/proc`."""

import os
import sys

from mempressure.measure.memory_reading import MemoryReading
from mempressure.measure.pressure import MeasureError, contents

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


def _meminfo(path: str) -> dict[str, int]:
    try:
        text = b"\n" + contents(path, 16384)
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


def _host_memory_by_psutil() -> MemoryReading:
    try:
        import psutil
    except ImportError:
        raise MeasureError("measuring the host needs psutil on this platform: pip install psutil") from None
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return MemoryReading(memory.total, memory.available, swap.total, swap.free)
