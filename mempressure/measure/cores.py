"""Cores that this process may use, by its affinity and the CPU quotas of its cgroups."""

import math
import os

_CGROUPS = "/sys/fs/cgroup"


def usable_cores(*, proc: str = "/proc", cgroups: str = _CGROUPS) -> int:
    """Return how many cores this process may use at a time, at least 1."""
    cores = float(len(os.sched_getaffinity(0)))
    for path in _cgroup_directories(proc, cgroups):
        cores = min(cores, _quota(path))
    return max(1, math.ceil(cores))


def _cgroup_directories(proc: str, cgroups: str) -> list[str]:
    """Return the directories of the cgroups, v2 or v1's cpu controller, from this process's up to the root."""
    try:
        with open(f"{proc}/self/cgroup") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    found = []
    for number, controllers, path in (line for line in lines if len(line) == 3):
        if number == "0":
            bases = [cgroups, f"{cgroups}/unified"]
        elif "cpu" in controllers.split(","):
            bases = [f"{cgroups}/{controllers}", f"{cgroups}/cpu"]
        else:
            continue
        parts = [part for part in path.split("/") if part and part != ".."]
        for base in bases:
            found += ["/".join((base, *parts[:depth])) for depth in range(len(parts), -1, -1)]
    return found


def _quota(directory: str) -> float:
    """Return the number of cores that a cgroup may use, infinity without a limit."""
    try:
        with open(f"{directory}/cpu.max") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        try:
            with open(f"{directory}/cpu.cfs_quota_us") as file:
                quota = file.read().strip()
            with open(f"{directory}/cpu.cfs_period_us") as file:
                period = file.read().strip()
        except OSError:
            return math.inf
    try:
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (ValueError, ZeroDivisionError):  # "max"
        return math.inf
