"""How many processes the kernel has killed for want of memory: of the host, and of the cgroups that apps live in."""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mempressure.measure.cgroup import Cgroup

MAX_CGROUPS = 256
"""Cgroups of workers that ended are remembered, as their end may be what there is to tell; the oldest go first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kills:
    """Counters since boot, or since a cgroup was made; None where the kernel does not tell."""

    host: int | None
    cgroups: dict[str, int]
    """By directory."""
    unexplained: int = 0
    """By how much `host` rose more than the cgroups did; negative where it was read before they were."""


@dataclass(frozen=True, slots=True)
class Rise:
    """Kills since the last look: in a cgroup, by its directory, or elsewhere on the host, with none."""

    cgroup: str
    count: int


def read_kills(cgroups: Iterable[Cgroup], *, proc: str) -> Kills:
    """Read the counters as they are now; a cgroup that is gone is left out."""
    host = _field(Path(proc, "vmstat"), "oom_kill")  # first: a cgroup may be ahead of it, never behind
    found = {}
    for cgroup in cgroups:
        name = "memory.events" if cgroup.version == 2 else "memory.oom_control"
        count = _field(cgroup.directory / name, "oom_kill")
        if count is not None:
            found[str(cgroup.directory)] = count
    return Kills(host=host, cgroups=found)


def risen(before: Kills, now: Kills) -> tuple[list[Rise], Kills]:
    """Return what rose between two readings, and the second with what it leaves unexplained.

    A cgroup that is seen for the first time has not risen. A counter that fell began anew, and is taken as it is.
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
    with contextlib.suppress(OSError):  # gone, or a kernel before 4.13
        if match := re.search(rf"^{name} (\d+)$", path.read_text(), re.MULTILINE):
            return int(match[1])
    return None
