"""Isolated packages as the worker publishes them."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from mempressure.measure.process import MeasuredProcesses, ProcessMemory
from mempressure.measure.reading import UNKNOWN
from mempressure.state.records import PROCESS_SOURCE, PackageState

if TYPE_CHECKING:
    from mempressure.isolation.package import IsolatedPackage


def isolated_states(
    isolated: Mapping[str, "IsolatedPackage"], memory: MeasuredProcesses, *, growth: Mapping[str, float] | None = None
) -> list[PackageState]:
    """Return every isolated package as it is now, like `Packages.states`."""
    rates = growth or {}
    return [
        _isolated_state(package, memory.get(package.name, {}).values(), rates.get(package.name, UNKNOWN))
        for package in list(isolated.values())
    ]


def _isolated_state(package: "IsolatedPackage", processes: Collection[ProcessMemory], growth: float) -> PackageState:
    memory_bytes = sum(process.private for process in processes)
    last_used = package.last_used_anywhere
    return PackageState(
        name=package.name,
        mechanism="stop",
        source=PROCESS_SOURCE,
        timeout=package.timeout,
        priority=package.priority,
        keep_loaded=package.keep_loaded,
        processes_id=package.processes_id,
        loaded=float(len(package.process_pids)),
        active_calls=float(package.active_calls),
        waiting_calls=float(package.waiting_calls),
        # Nothing else is in its processes: all of it is its own, and goes with them.
        memory_bytes=float(memory_bytes),
        proportional_bytes=float(sum(process.proportional for process in processes)),
        result_bytes=float(package.imported.size),
        cumulative_bytes=float(memory_bytes),
        freed_bytes=float(memory_bytes),
        growth=growth,
        last_used=UNKNOWN if last_used is None else last_used,
        uses=float(package.uses),
        loads=float(package.loads),
        refaults=float(package.refaults),
        refault_level=package.refault_level,
        last_refault=UNKNOWN if package.last_refault is None else package.last_refault,
        refault_delay=package.refault_delay,
        load_seconds=package.load_seconds,
        unloads=float(package.unloads),
        reclaimed_bytes=float(package.reclaimed_bytes),
    )
