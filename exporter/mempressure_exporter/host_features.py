"""Checks of the features that the exporter needs of this machine, with the reason for each that is missing."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mempressure.config.paths import require_trustworthy_parent
from mempressure.errors import MempressureError
from mempressure.measure.memory_controllers import memory_controllers
from mempressure.measure.pressure import pressure
from mempressure.measure.psi_trigger import TriggerError, psi_trigger

MIN_RUNTIME_BYTES = 1 << 20
"""Free space required for the workers' state files, of some KiB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The directories that the checks examine: mount points of proc and sysfs, and the runtime directory."""

    proc: str
    sysfs: str = "/sys"
    runtime: Path


def unsupported(machine: Machine, *, leave_out: Collection[str] = ()) -> dict[str, str]:
    """Return the missing features with a readable reason each; features in `leave_out` are not checked."""
    checks = {name: check for name, check in CHECKS.items() if name not in leave_out}
    return {name: reason for name, check in checks.items() if (reason := check(machine))}


def psi(machine: Machine) -> str:
    """Return why there is no pressure stall information; empty where there is."""
    path = f"{machine.proc}/pressure/memory"
    try:
        return "" if pressure(path) else f"no {path}: Linux before 4.20, or booted without psi=1"
    except OSError as error:
        return str(error)


def pressure_triggers(machine: Machine) -> str:
    """Return why the kernel cannot notify of memory stalls; empty where it can."""
    try:
        psi_trigger(f"{machine.proc}/pressure/memory").close()
    except TriggerError as error:
        return str(error)
    return ""


def cgroup_v1(machine: Machine) -> str:
    """Return why there are no memory limits of cgroups v1; empty where there are."""
    found = memory_controllers(proc=machine.proc, sysfs=machine.sysfs)
    return "" if 1 in found else "no cgroup v1 memory controller is mounted"


def cgroup_v2(machine: Machine) -> str:
    """Return why there are no memory limits of cgroups v2; empty where there are."""
    found = memory_controllers(proc=machine.proc, sysfs=machine.sysfs)
    return "" if 2 in found else "no cgroup2 with a memory controller is mounted"


def runtime_directory(machine: Machine) -> str:
    """Return why workers cannot publish, or why what they publish is untrusted; empty where it is fine."""
    try:
        require_trustworthy_parent(machine.runtime)
        space = os.statvfs(machine.runtime)
    except FileNotFoundError:
        return ""  # the first worker creates it
    except (MempressureError, OSError) as error:
        return str(error)
    free = space.f_bavail * space.f_frsize
    return (
        "" if free >= MIN_RUNTIME_BYTES else f"{machine.runtime} has {free} bytes left; {MIN_RUNTIME_BYTES} are needed"
    )


CHECKS: Mapping[str, Callable[[Machine], str]] = {
    check.__name__: check for check in (psi, pressure_triggers, cgroup_v1, cgroup_v2, runtime_directory)
}
"""The check of every feature; it returns why the feature is missing, empty where it is there."""
