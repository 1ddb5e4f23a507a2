"""What `MemoryMonitor` measures is what psutil measures, to the byte."""

import psutil
import pytest

from mempressure.control.monitor import MemoryMonitor
from tests.support.waiting import until


def by_psutil():
    """Return psutil's figures by the names of `SystemMemory`."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "total": memory.total,
        "available": memory.available,
        "used": memory.total - memory.available,
        "percent": memory.percent,
        "swap_total": swap.total,
        "swap_used": swap.used,
        "swap_percent": swap.percent,
        "swap_available": swap.free,
    }


def by_monitor(monitor):
    """Return the monitor's figures; psutil rounds percentages to a tenth."""
    found = monitor.get_system_memory_info()
    found |= {name: round(found[name], 1) for name in ("percent", "swap_percent")}
    return {name: found[name] for name in by_psutil()}


def test_it_agrees_with_psutil_on_this_machine():
    monitor = MemoryMonitor()

    def undisturbed():
        """Return both, once psutil measured the same before and after: other processes use memory meanwhile."""
        before, measured, after = by_psutil(), by_monitor(monitor), by_psutil()
        assert measured["total"] == before["total"]
        return before == after and (measured, before)

    measured, expected = until(undisturbed, "two equal measurements in a row", seconds=30)
    assert measured == expected


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"SwapTotal": 0, "SwapFree": 0},
        {"SwapFree": 0},
        {"MemTotal": 25_276_510, "MemAvailable": 1, "SwapTotal": 3, "SwapFree": 2},
    ],
    ids=["with swap", "without swap", "swap full", "odd"],
)
def test_it_agrees_with_psutil_on_other_machines(proc, monkeypatch, fields):
    # psutil warns of the fields that it reads besides, where they are missing.
    proc.meminfo(Active=1, Inactive=1, Shmem=1, Slab=1, **fields)
    proc.write("vmstat", "pswpin 0\npswpout 0\n")
    monkeypatch.setattr(psutil, "PROCFS_PATH", proc.path)
    assert by_monitor(MemoryMonitor(proc=proc.path)) == by_psutil()
