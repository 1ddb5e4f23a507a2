"""The memory of apps, workers, packages and processes at one moment, as plain data for a report."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mempressure.measure.cgroup import Cgroup
from mempressure.measure.memory_reading import MemoryReading
from mempressure.measure.process import PAGE_BYTES
from mempressure.state.node import AppReading, NodeReading

MOST_PROCESSES = 10
MOST_PACKAGES = 20
MOST_READ = 64
"""Processes of a cgroup that are read, at 10 us each."""


def holders(reading: NodeReading, cgroups: Mapping[Cgroup, str], *, proc: str) -> dict[str, Any]:
    """Return what holds memory now: apps with workers and packages, and the largest processes of their cgroups."""
    return {
        "time": reading.sampled,
        "host": _memory(reading.host),
        "apps": {app.name: _app(app) for app in reading.apps.values()},
        "processes": {str(cgroup.directory): _largest(_members(cgroup), proc=proc) for cgroup in cgroups},
    }


def _app(app: AppReading) -> dict[str, Any]:
    return {
        "memory": _memory(app.memory) if app.memory is not None else None,
        # Of all workers together, which may share them: each counts once.
        "package_processes_bytes": int(app.package_processes.proportional_bytes),
        "workers": [
            {
                "pid": worker.pid,
                "private_bytes": int(worker.private_bytes),
                "packages": dict(
                    sorted(
                        ((p.name, int(p.memory_bytes)) for p in worker.packages if p.loaded), key=lambda held: -held[1]
                    )[:MOST_PACKAGES]
                ),
            }
            for worker in app.workers
        ],
    }


def _memory(memory: MemoryReading) -> dict[str, float]:
    return {"total_bytes": memory.total, "used_bytes": memory.used, "usage": round(memory.usage, 4)}


def _members(cgroup: Cgroup) -> list[str]:
    with contextlib.suppress(OSError):
        return (cgroup.directory / "cgroup.procs").read_text().split()[:MOST_READ]
    return []


def _largest(pids: Iterable[str], *, proc: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has just ended
            pages = int(Path(proc, pid, "statm").read_text().split()[1])
            name = Path(proc, pid, "comm").read_text().strip()
            found.append({"pid": int(pid), "name": name, "resident_bytes": pages * PAGE_BYTES})
    return sorted(found, key=lambda process: -process["resident_bytes"])[:MOST_PROCESSES]
