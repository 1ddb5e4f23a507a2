"""Counts of processes that the OOM killer has killed, on the host and in the cgroups that apps run in."""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mempressure.measure.cgroup import Cgroup

MAX_CGROUPS = 256
"""Cgroups that are watched, including those whose workers ended, perhaps by such a kill; the oldest are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kills:
    """Kill counters since boot, or since a cgroup was created; None if the kernel has no counter."""

    host: int | None
    cgroups: dict[str, int]
    """By directory."""
    unexplained: int = 0
    """How much more `host` rose than the cgroups did; negative if a cgroup, read later, was ahead of it."""


@dataclass(frozen=True, slots=True)
class Rise:
    """Kills since the last reading, in a cgroup (its directory) or elsewhere on the host (empty)."""

    cgroup: str
    count: int


def read_kills(cgroups: Iterable[Cgroup], *, proc: str) -> Kills:
    """Read the counters; cgroups that were removed are left out."""
    host = _field(Path(proc, "vmstat"), "oom_kill")  # first: a cgroup may be ahead of it, never behind
    found = {}
    for cgroup in cgroups:
        name = "memory.events" if cgroup.version == 2 else "memory.oom_control"
        count = _field(cgroup.directory / name, "oom_kill")
        if count is not None:
            found[str(cgroup.directory)] = count
    return Kills(host=host, cgroups=found)


def risen(before: Kills, now: Kills) -> tuple[list[Rise], Kills]:
    """Return the kills between two readings, and the second reading with the host's kills that no cgroup explains.

    A cgroup that is read for the first time has no kills. A counter that fell was reset, and is taken as it is.
    """
    rises = []
    for directory, count in now.cgroups.items():
        known = before.cgroups.get(directory, count)
        if count > known:
            rises.append(Rise(directory, count - known))
    unexplained = 0
    if before.host is not None and now.host is not None and now.host >= before.host:
        unexplained = before.unexplained + now.host - before.host - sum(rise.count for rise in rises)
    if unexplained > 0:
        rises.append(Rise("", unexplained))
    return rises, Kills(host=now.host, cgroups=now.cgroups, unexplained=min(0, unexplained))


def _field(path: Path, name: str) -> int | None:
    with contextlib.suppress(OSError):  # removed, or a kernel before 4.13
        if match := re.search(rf"^{name} (\d+)$", path.read_text(), re.MULTILINE):
            return int(match[1])
    return None
