"""Finds the memory cgroups that the workers of each app run in."""

from collections.abc import Mapping
from pathlib import Path

from mempressure.measure.cgroup import V1_UNLIMITED, Cgroup, own_cgroup
from mempressure.measure.process import pid_namespace
from mempressure.state.node import NodeReading

_Worker = tuple[int, int]


class AppCgroups:
    """Looks up the cgroup of each worker once, when it is first seen.

    Workers of other PID namespaces cannot be looked up and are left out.

    Args:
        proc: where the kernel's files are.
    """

    def __init__(self, *, proc: str = "/proc") -> None:
        self._proc = proc
        self._namespace = pid_namespace(proc=proc)
        self._known: dict[_Worker, Cgroup | None] = {}

    def of(self, reading: NodeReading) -> dict[Cgroup, str]:
        """Return the cgroups that the workers of this reading run in, and the app of each."""
        known: dict[_Worker, Cgroup | None] = {}
        found: dict[Cgroup, str] = {}
        for app in reading.apps.values():
            for worker in app.workers:
                if worker.pid_namespace != self._namespace:
                    continue
                key = (worker.pid, worker.start_ticks)
                known[key] = self._known[key] if key in self._known else own_cgroup(proc=self._proc, pid=worker.pid)
                if (cgroup := known[key]) is not None:
                    found[cgroup] = app.name
        self._known = known
        return found


def v1_limits(cgroups: Mapping[Cgroup, str]) -> dict[Path, int]:
    """Return, for v1 cgroups, the directory whose limit binds each of them, and that limit in bytes.

    The kernel reports reclaim and usage at the cgroup that has the limit.
    """
    found = {}
    for cgroup in cgroups:
        if cgroup.version == 1 and (binding := _binding(cgroup)) is not None:
            directory, limit = binding
            found[directory] = limit
    return found


def _binding(cgroup: Cgroup) -> tuple[Path, int] | None:
    tightest: tuple[Path, int] | None = None
    directory = cgroup.directory
    while directory.is_relative_to(cgroup.mount):
        try:
            limit = int((directory / "memory.limit_in_bytes").read_text())
        except (OSError, ValueError):  # removed meanwhile, or a container's mount that shows only a part of the tree
            break
        if limit < V1_UNLIMITED and (tightest is None or limit < tightest[1]):
            tightest = (directory, limit)
        directory = directory.parent
    return tightest
