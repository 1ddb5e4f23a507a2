"""What this machine can tell of its memory, and what it cannot and why: the exporter's own part of the self-check."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mempressure.config.paths import require_trustworthy_parent
from mempressure.errors import MempressureError
from mempressure.measure.cgroup import memory_controllers
from mempressure.measure.memory import pressure
from mempressure.measure.psi_trigger import TriggerError, psi_trigger

MIN_RUNTIME_BYTES = 1 << 20
"""Free space that the workers' state files need: some KiB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the checks look."""

    proc: str
    sysfs: str = "/sys"
    runtime: Path


def unsupported(machine: Machine, *, leave_out: Collection[str] = ()) -> dict[str, str]:
    """Return, for each feature that this machine lacks, the reason for people to read; look at all but `leave_out`."""
    looked_at = {name: check for name, check in CHECKS.items() if name not in leave_out}
    return {name: reason for name, check in looked_at.items() if (reason := check(machine))}


def psi(machine: Machine) -> str:
    """Pressure stall information."""
    path = f"{machine.proc}/pressure/memory"
    try:
        return "" if pressure(path) else f"no {path}: Linux before 4.20, or booted without psi=1"
    except OSError as error:
        return str(error)


def pressure_triggers(machine: Machine) -> str:
    """Waking up when tasks begin to wait for memory."""
    try:
        psi_trigger(f"{machine.proc}/pressure/memory").close()
    except TriggerError as error:
        return str(error)
    return ""


def cgroup_v1(machine: Machine) -> str:
    """Memory limits of control groups, version 1."""
    found = memory_controllers(proc=machine.proc, sysfs=machine.sysfs)
    return "" if 1 in found else "no cgroup v1 memory controller is mounted"


def cgroup_v2(machine: Machine) -> str:
    """Memory limits of control groups, version 2."""
    found = memory_controllers(proc=machine.proc, sysfs=machine.sysfs)
    return "" if 2 in found else "no cgroup2 with a memory controller is mounted"


def runtime_directory(machine: Machine) -> str:
    """Reading what the workers publish."""
    try:
        require_trustworthy_parent(machine.runtime)
        space = os.statvfs(machine.runtime)
    except FileNotFoundError:
        return ""  # the first worker makes it
    except (MempressureError, OSError) as error:
        return str(error)
    free = space.f_bavail * space.f_frsize
    return (
        "" if free >= MIN_RUNTIME_BYTES else f"{machine.runtime} has {free} bytes left; {MIN_RUNTIME_BYTES} are needed"
    )


CHECKS: Mapping[str, Callable[[Machine], str]] = {
    check.__name__: check for check in (psi, pressure_triggers, cgroup_v1, cgroup_v2, runtime_directory)
}
"""Every feature of a machine; a check returns the reason why it is not there, empty where it is."""
