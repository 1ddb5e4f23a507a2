"""Which versions of cgroups have a memory controller on this machine; workers need not know."""

import os
from contextlib import suppress
from pathlib import Path

from mempressure.measure.cgroup import find_mount


def memory_controllers(*, proc: str = "/proc", sysfs: str = "/sys") -> set[int]:
    """Return the versions of cgroups, 1 and 2, whose memory controller is mounted; both only while one is moved."""
    try:
        mounts = os.fsdecode(Path(proc, "self", "mountinfo").read_bytes())
    except OSError:
        return set()
    found = {1} if find_mount(mounts, 1, sysfs=sysfs) else set()
    if (mount := find_mount(mounts, 2, sysfs=sysfs)) is not None:
        _, point = mount
        with suppress(OSError):  # a cgroup2 mount of another namespace
            if "memory" in (point / "cgroup.controllers").read_text().split():
                found.add(2)
    return found
