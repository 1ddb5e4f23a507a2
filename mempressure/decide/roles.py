"""The roles of an app's processes, and what the memory of each role consists of: pure functions over workers' states.

A *role* is what a process is to the app: a server's master, its workers or children, a package process, or a helper,
which no server runs beside one that does. The proportional memory (PSS) of a role is split in five parts:

    shared    pages that other processes have too: what remains of PSS without the private memory
    fresh     private memory that a worker has when it begins to serve: its successor has it again
    late      private memory that imports have added since then
    grown     the rest of the private memory of a worker; late imports too, where those are not watched
    unsplit   private memory of processes whose fresh memory is not known
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from mempressure.measure.reading import UNKNOWN
from mempressure.state.node import one_per_supervisor
from mempressure.state.package_processes import PackageProcesses, package_processes
from mempressure.state.records import WorkerState

PACKAGE_PROCESS = "package process"
HELPER = "helper"
ORDER = ("master", "worker", "child", PACKAGE_PROCESS, HELPER, "process")
"""Every role, in the order of showing. `process` is what runs where no process of the app is a server's."""
PARTS = ("shared", "fresh", "late", "grown", "unsplit")

_TITLES = {("celery", "master"): "celery main"}
_Process = tuple[int, "Split", float | None]
"""Number of processes, what their memory consists of, and for how long they have been idle."""


class RoleDict(TypedDict):
    """The processes of one role; null is what is not known of any of them."""

    role: str
    server: str | None
    title: str
    processes: int
    proportional_bytes: int
    private_bytes: int
    shared_bytes: int
    fresh_bytes: int | None
    late_bytes: int | None
    grown_bytes: int | None
    unsplit_bytes: int
    idle_seconds: float | None


class Split(NamedTuple):
    """The proportional memory of one or more processes in its parts, whole bytes; None where not known of any."""

    shared: int = 0
    fresh: int | None = None
    late: int | None = None
    grown: int | None = None
    unsplit: int = 0

    @property
    def private_bytes(self) -> int:
        """Return what the end of the processes would free."""
        return (self.fresh or 0) + (self.late or 0) + (self.grown or 0) + self.unsplit

    @property
    def proportional_bytes(self) -> int:
        """Return the sum of all parts."""
        return self.shared + self.private_bytes

    def parts(self) -> Iterator[tuple[str, int]]:
        """Yield the parts that are known, with their names from `PARTS`."""
        for name, size in zip(PARTS, self, strict=True):
            if size is not None:
                yield name, size


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """The processes of one role, under one server."""

    role: str
    """One of `ORDER`."""
    server: str
    """What runs them, such as gunicorn; empty where no server does, or where nothing would replace them."""
    processes: int
    split: Split
    idle_seconds: float | None
    """Since the last request or task in any of them, 0 while one is under way; None where that is not seen."""

    @property
    def title(self) -> str:
        """Return the role as it is shown: gunicorn worker."""
        return _TITLES.get((self.server, self.role), f"{self.server} {self.role}".strip())

    def as_dict(self) -> RoleDict:
        """Return it as plain data."""
        return {
            "role": self.role,
            "server": self.server or None,
            "title": self.title,
            "processes": self.processes,
            "proportional_bytes": self.split.proportional_bytes,
            "private_bytes": self.split.private_bytes,
            "shared_bytes": self.split.shared,
            "fresh_bytes": self.split.fresh,
            "late_bytes": self.split.late,
            "grown_bytes": self.split.grown,
            "unsplit_bytes": self.split.unsplit,
            "idle_seconds": self.idle_seconds,
        }


def roles(workers: Iterable[WorkerState], *, now: float, processes: PackageProcesses | None = None) -> list[Role]:
    """Return the roles of an app's processes in the order of showing; the sum of all is the app's memory.

    Args:
        workers: the states of all of the app's processes that publish one.
        now: Unix seconds.
        processes: the package processes of these workers, where they were counted already.
    """
    workers = list(workers)
    served = any(worker.role for worker in workers)
    found: dict[tuple[str, str], list[_Process]] = {}
    for worker in workers:
        key = (role_of(worker, served=served), worker.supervisor)
        found.setdefault(key, []).append((1, split(worker), idle_seconds(worker, now=now)))
    counted = processes or package_processes(workers)
    if counted.number:
        memory = _split(counted.proportional_bytes, counted.private_bytes)
        found[PACKAGE_PROCESS, ""] = [(counted.number, memory, None)]
    for worker in one_per_supervisor(workers):
        if worker.supervisor_bytes > 0:
            memory = _split(worker.supervisor_bytes, worker.supervisor_private_bytes)
            found.setdefault(("master", worker.supervisor), []).append((1, memory, None))
    known = [_role(*key, processes) for key, processes in found.items()]
    return sorted(known, key=lambda role: (ORDER.index(role.role), role.server))


def role_of(worker: WorkerState, *, served: bool) -> str:
    """Return the role of a process that publishes its state; `served`: whether a server runs any of its app's."""
    if worker.role in ORDER:
        return worker.role
    return HELPER if served else "process"


def split(worker: WorkerState) -> Split:
    """Return what the memory of a worker, without its package processes, consists of."""
    whole = _split(worker.proportional_bytes, worker.private_bytes)
    if worker.baseline_bytes == UNKNOWN:
        return whole
    fresh = min(_whole(worker.baseline_bytes), whole.unsplit)
    rest = whole.unsplit - fresh
    late = None if worker.late_bytes == UNKNOWN else min(_whole(worker.late_bytes), rest)
    return Split(shared=whole.shared, fresh=fresh, late=late, grown=rest - (late or 0))


def idle_seconds(worker: WorkerState, *, now: float) -> float | None:
    """Return how long no request or task has been under way in a worker; None where its server does not show that."""
    if worker.last_work == UNKNOWN:
        return None
    return 0.0 if worker.active_work > 0 else max(0.0, now - worker.last_work)


def idle_together(seconds: Iterable[float | None]) -> float | None:
    """Return how long several have been idle together; None where that of one is not known, or there is none."""
    known = list(seconds)
    return None if None in known else min((each for each in known if each is not None), default=None)


def _split(proportional: float, private: float) -> Split:
    whole = _whole(proportional)
    # The two come from one reading, but anything may be published: no part is ever negative.
    own = min(_whole(private), whole)
    return Split(shared=whole - own, unsplit=own)


def _role(role: str, server: str, processes: list[_Process]) -> Role:
    # Column by column: this is part of every scrape, and adding the splits one to the other took twice as long.
    shared, fresh, late, grown, unsplit = zip(*(split for _, split, _ in processes), strict=True)
    return Role(
        role=role,
        server=server,
        processes=sum(number for number, _, _ in processes),
        split=Split(sum(shared), _known_sum(fresh), _known_sum(late), _known_sum(grown), sum(unsplit)),
        idle_seconds=idle_together(idle for _, _, idle in processes),
    )


def _known_sum(sizes: Iterable[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def _whole(size: float) -> int:
    return int(size) if size > 0 else 0  # unknown sizes are below 0
