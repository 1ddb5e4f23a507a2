"""Readings of a process's memory cgroup, of version 1, version 2 or both (hybrid)."""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mempressure.measure.pressure import PressureReading, pressure
from mempressure.record import Record

V1_UNLIMITED = 1 << 62
"""v1 limits from here on mean "no limit": the kernel reports the largest page-aligned i64, which is 9223372036854771712
with 4 KiB pages and less with larger ones."""

EVENTS = ("low", "high", "max", "oom", "oom_kill")
"""What the kernel counts in a cgroup, named as in v2's `memory.events`."""


class CgroupReading(Record):
    """Memory of one cgroup at one time, in bytes."""

    limit: int | None
    """The tightest of its own and its ancestors'; None where none is set."""
    working_set: int
    pressure: PressureReading | None = None
    events: Mapping[str, int] = {}
    """Count of each of `EVENTS`; those that the kernel does not count are absent."""
    identity: int = 0
    """Inode number of its directory: the same in every container that mounts it, and never reused."""


class Cgroup(Record):
    """The memory cgroup of a process: its directory, the mount that this is in, and the version, 1 or 2."""

    directory: Path
    mount: Path
    version: int
    unified: Path | None = None
    """Of a hybrid tree with memory under v1: the process's directory on the v2 side, which has `memory.pressure`."""

    def read(self) -> CgroupReading | None:
        """Measure; None where the files are absent (the root cgroup of v2) or lack fields (as under gVisor).

        Raises:
            MeasureError: `memory.pressure` does not read as PSI.
        """
        try:
            reading = _read_v2(self) if self.version == 2 else _read_v1(self)
            pressure_directory = self.directory if self.version == 2 else self.unified
            reading.pressure = pressure(f"{pressure_directory}/memory.pressure") if pressure_directory else None
            reading.identity = os.stat(self.directory).st_ino
        except (FileNotFoundError, KeyError, ValueError):
            return None
        except OSError as error:
            if error.errno == errno.ENODEV:  # removed while its files were open
                return None
            raise
        return reading


def own_cgroup(*, proc: str = "/proc", sysfs: str = "/sys", pid: int | str = "self") -> Cgroup | None:
    """Find the memory cgroup of a process through `/proc/PID/cgroup` and `mountinfo`; None where there is none.

    A hybrid tree has a v2 mount without the memory controller: there the v1 cgroup is returned. A v2 cgroup without the
    controller is charged to the nearest ancestor that has it, which is then returned.

    Args:
        proc: where proc is mounted.
        sysfs: where sysfs is mounted: cgroups that `mountinfo` shows below `/sys` are looked up there.
        pid: the process id.
    """
    try:
        # Names in these files are bytes: decoded so that no locale makes them unreadable.
        membership, mounts = (os.fsdecode(Path(proc, str(pid), name).read_bytes()) for name in ("cgroup", "mountinfo"))
    except OSError:
        return None
    paths = {}
    for line in membership.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            paths[2] = path
        elif "memory" in controllers.split(","):
            paths[1] = path
    places = {version: _place(mounts, version, path, sysfs=sysfs) for version, path in paths.items()}
    for version in (1, 2):
        if (place := places.get(version)) is None:
            continue
        directory, mount = place
        while not (directory / "memory.stat").exists() and directory != mount:
            directory = directory.parent
        if (directory / "memory.stat").exists():
            # The v2 root has every process that was not put into another group: its stalls are not this cgroup's.
            other = places.get(2) if version == 1 and paths.get(2) != "/" else None
            return Cgroup(directory, mount, version, other[0] if other else None)
    return None


def _place(mounts: str, version: int, path: str, *, sysfs: str) -> tuple[Path, Path] | None:
    """Return the directory of a cgroup and the mount above it; None where it is not mounted."""
    mount = find_mount(mounts, version, sysfs=sysfs)
    if mount is None:
        return None
    root, point = mount
    relative = os.path.relpath(path, root)
    # A container without a cgroup namespace sees a path outside the mount's root: there the mount is its cgroup.
    return (point if relative.startswith("..") else Path(os.path.normpath(point / relative))), point


def find_mount(mountinfo: str, version: int, *, sysfs: str) -> tuple[str, Path] | None:
    """Return the root and the mount point of a hierarchy that has memory cgroups; None where it is not mounted.

    Args:
        mountinfo: the content of `/proc/PID/mountinfo`.
        version: 1 or 2; of version 2 the memory controller may be missing.
        sysfs: as in `own_cgroup`.
    """
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        fields = left.split()
        if (version == 2 and kind == "cgroup2") or (
            version == 1 and kind == "cgroup" and "memory" in options.split()[-1].split(",")
        ):
            point = _unescape(fields[4])
            return _unescape(fields[3]), Path(sysfs + point[4:] if point.startswith("/sys/") else point)
    return None


def _unescape(path: str) -> str:
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _numbers(file: Path) -> dict[str, int]:
    lines = (line.split() for line in file.read_text().splitlines())
    return {name: int(value) for name, value in lines}


def _events(file: Path) -> dict[str, int]:
    """Return the counts of `EVENTS` in a file; empty where it is absent."""
    try:
        numbers = _numbers(file)
    except (FileNotFoundError, ValueError):
        return {}
    return {name: numbers[name] for name in EVENTS if name in numbers}


def _read_v1(cgroup: Cgroup) -> CgroupReading:
    statistics = _numbers(cgroup.directory / "memory.stat")
    usage = int((cgroup.directory / "memory.usage_in_bytes").read_text())
    # The kernel's own minimum over all ancestors.
    limit = statistics["hierarchical_memory_limit"]
    events = _events(cgroup.directory / "memory.oom_control")
    with suppress(FileNotFoundError, ValueError):
        # Times that usage hit the limit, which v2 counts as `max`.
        events["max"] = int((cgroup.directory / "memory.failcnt").read_text())
    return CgroupReading(
        limit=None if limit >= V1_UNLIMITED else limit,
        working_set=max(0, usage - statistics["total_inactive_file"]),
        events=events,
    )


def _read_v2(cgroup: Cgroup) -> CgroupReading:
    statistics = _numbers(cgroup.directory / "memory.stat")
    usage = int((cgroup.directory / "memory.current").read_text())
    limits = []
    directory = cgroup.directory
    while directory.is_relative_to(cgroup.mount):
        try:
            text = (directory / "memory.max").read_text().strip()
        except FileNotFoundError:  # the root of the hierarchy has no limit file
            break
        if text != "max":
            limits.append(int(text))
        directory = directory.parent
    return CgroupReading(
        limit=min(limits) if limits else None,
        working_set=max(0, usage - statistics["inactive_file"]),
        events=_events(cgroup.directory / "memory.events"),
    )
