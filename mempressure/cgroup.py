"""Memory of the cgroup that this process lives in, v1, v2 or hybrid."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mempressure.memory import PressureReading, pressure

V1_UNLIMITED = 1 << 62
"""v1 says "no limit" as the largest page-aligned i64 (9223372036854771712 with 4 KiB pages, less with larger ones)."""


class CgroupReading(NamedTuple):
    """Working set and tightest limit in bytes; the limit is None where there is none."""

    limit: int | None
    working_set: int
    pressure: PressureReading | None = None


class Cgroup(NamedTuple):
    """Where the memory controller shows this process: its directory, the mount above it, and the version 1 or 2."""

    directory: Path
    mount: Path
    version: int

    def read(self) -> CgroupReading | None:
        """Measure; None where the files are not there (the root cgroup of v2) or lack fields (gVisor's).

        Raises:
            MeasureError: `memory.pressure` does not read as PSI.
        """
        try:
            return _read_v2(self) if self.version == 2 else _read_v1(self)
        except (FileNotFoundError, KeyError, ValueError):
            return None
        except OSError as error:
            if error.errno == errno.ENODEV:  # removed while its files were open
                return None
            raise


def own_cgroup(*, proc: str = "/proc", pid: int | str = "self") -> Cgroup | None:
    """Find the memory cgroup of a process through `/proc/PID/cgroup` and `mountinfo`; None where there is none.

    A hybrid tree has a v2 mount without the memory controller: there the v1 controller is taken.
    """
    try:
        # Names in them are bytes; a worker's locale must not decide whether they can be read.
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
    for version in (1, 2):
        if version in paths and (mount := _mount(mounts, version)):
            root, point = mount
            relative = os.path.relpath(paths[version], root)
            # A path outside the mount's root is what a container without a cgroup namespace sees: its mount is its own.
            directory = point if relative.startswith("..") else Path(os.path.normpath(point / relative))
            if (directory / "memory.stat").exists():
                return Cgroup(directory, point, version)
    return None


def memory_controllers(*, proc: str = "/proc") -> set[int]:
    """Return the versions of cgroups, 1 and 2, whose memory controller is mounted; both only while one is moved."""
    try:
        mounts = os.fsdecode(Path(proc, "self", "mountinfo").read_bytes())
    except OSError:
        return set()
    found = {1} if _mount(mounts, 1) else set()
    if (mount := _mount(mounts, 2)) is not None:
        _, point = mount
        with suppress(OSError):  # a cgroup2 mount of another namespace
            if "memory" in (point / "cgroup.controllers").read_text().split():
                found.add(2)
    return found


def _mount(mountinfo: str, version: int) -> tuple[str, Path] | None:
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        fields = left.split()
        if version == 2 and kind == "cgroup2":
            return _unescape(fields[3]), Path(_unescape(fields[4]))
        if version == 1 and kind == "cgroup" and "memory" in options.split()[-1].split(","):
            return _unescape(fields[3]), Path(_unescape(fields[4]))
    return None


def _unescape(path: str) -> str:
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _statistics(directory: Path) -> dict[str, int]:
    lines = (line.split() for line in (directory / "memory.stat").read_text().splitlines())
    return {name: int(value) for name, value in lines}


def _read_v1(cgroup: Cgroup) -> CgroupReading:
    statistics = _statistics(cgroup.directory)
    usage = int((cgroup.directory / "memory.usage_in_bytes").read_text())
    # The kernel has already taken the tightest limit of all ancestors.
    limit = statistics["hierarchical_memory_limit"]
    return CgroupReading(
        limit=None if limit >= V1_UNLIMITED else limit,
        working_set=max(0, usage - statistics["total_inactive_file"]),
    )


def _read_v2(cgroup: Cgroup) -> CgroupReading:
    statistics = _statistics(cgroup.directory)
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
        pressure=pressure(str(cgroup.directory / "memory.pressure")),
    )
