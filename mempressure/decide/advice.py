"""Advice on an app's memory: what to do, the command or code for it, and what it is expected to give back. Pure.

Each piece of advice is predicted from the app as it is, by itself: two of them together may bring less than their sum.
The predictions are cautious. What was measured, with two workers:

    Superset: 569 MiB as it is, 291 with sharing and its idle workers replaced (predicted: 569 - 205)
    wagtail: 199 MiB as it is, 125 (predicted: 199 - 69)
    Flask with pandas, SciPy and SymPy, used: 428 MiB as it is, 337 with sharing (predicted: 428 - 63)
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Literal, TypedDict

from mempressure.decide.roles import HELPER, idle_seconds, role_of, roles, split
from mempressure.measure.reading import UNKNOWN
from mempressure.state.records import ONLY_OBSERVED, SHARED_SOURCE, PackageState, WorkerState

MOST = 5
"""Pieces of advice for one app."""
LEAST_BYTES = 10 << 20
"""What is expected to change less is not worth a line."""
SHARED_AT_REST = 0.6
"""Share of a fresh worker's private memory that workers have in common when it was loaded before the fork."""
SHARED_AT_PEAK = 0.4
"""The same once they have worked for long: each use of an object writes to its page."""
PROCESS_BYTES = 8 << 20
"""What a package process takes besides its package; one is predicted, since more start only while calls wait."""
_SHARING = frozenset({"gunicorn", "celery"})
"""Servers whose workers are forked, so that `mempressure run --share` can serve them."""
_MOST_NAMES = 5

Kind = Literal["share", "manage", "import", "isolate", "helpers"]


class AdviceDict(TypedDict):
    """A piece of advice; bytes that it is expected to give back, negative where it would cost more memory."""

    kind: Kind
    action: str
    code: str
    rest_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A piece of advice."""

    kind: Kind
    action: str
    """What to do and why, without a full stop."""
    code: str
    """The command to run or the code to paste."""
    rest_bytes: int
    """What it is expected to give back while the app has nothing to do; negative: what it costs."""
    peak_bytes: int
    """The same while everything is in use."""

    def as_dict(self) -> AdviceDict:
        """Return it as plain data."""
        return {
            "kind": self.kind,
            "action": self.action,
            "code": self.code,
            "rest_bytes": self.rest_bytes,
            "peak_bytes": self.peak_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """The workers of one server."""

    server: str
    workers: Sequence[WorkerState]
    fresh: int
    """Private bytes of a fresh one, the lower median of those that are known; 0 where none is."""
    is_observed: bool
    """Whether `mempressure run` only observes them, so that nothing replaces them yet."""

    @property
    def named(self) -> str:
        """Return them in words: 2 gunicorn workers."""
        return f"{len(self.workers)} {self.server} {'children' if self.server == 'celery' else 'workers'}"

    @property
    def replaced_bytes(self) -> int:
        """Return what replacing all of them would give back: late imports and growth."""
        parts = [split(worker) for worker in self.workers]
        return sum((part.late or 0) + (part.grown or 0) for part in parts)


def advice(workers: Iterable[WorkerState], *, now: float, command: str = "COMMAND") -> list[Advice]:
    """Return at most `MOST` pieces of advice for one app, what changes most first.

    Args:
        workers: the states of all of the app's processes that publish one.
        now: Unix seconds.
        command: what starts the app, as it is to be shown.
    """
    workers = list(workers)
    found = [*_isolations(workers, now), *_helpers(workers, now)]
    for pool in _pools(workers):
        found += [*_sharing(pool, command), *_managing(pool, command), *_imports(pool)]
    worthwhile = [each for each in found if _weight(each) >= LEAST_BYTES]
    return sorted(worthwhile, key=_weight, reverse=True)[:MOST]


def _weight(advice: Advice) -> int:
    return max(advice.rest_bytes, advice.peak_bytes)


def _pools(workers: Sequence[WorkerState]) -> list[_Pool]:
    """Return the servers of which several workers can be replaced."""
    by_server: dict[str, list[WorkerState]] = {}
    for worker in workers:
        if worker.supervisor:
            by_server.setdefault(worker.supervisor, []).append(worker)
    pools = []
    for server, members in sorted(by_server.items()):
        known = [fresh for worker in members if (fresh := split(worker).fresh) is not None]
        if len(members) > 1:
            observed = all(worker.recycle_refused == ONLY_OBSERVED for worker in members)
            fresh = median_low(known) if known else 0
            pools.append(_Pool(server=server, workers=members, fresh=fresh, is_observed=observed))
    return pools


def _sharing(pool: _Pool, command: str) -> list[Advice]:
    if pool.server not in _SHARING:
        return []
    common = (len(pool.workers) - 1) * pool.fresh
    managed = pool.replaced_bytes if pool.is_observed else 0
    also = ", and replace idle ones" if pool.is_observed else ""
    return [
        Advice(
            kind="share",
            action=f"share what {pool.named} load before the fork{also}",
            code=f"mempressure run --manage --share -- {command}",
            rest_bytes=int(SHARED_AT_REST * common) + managed,
            peak_bytes=int(SHARED_AT_PEAK * common),
        )
    ]


def _managing(pool: _Pool, command: str) -> list[Advice]:
    if not pool.is_observed:
        return []
    return [
        Advice(
            kind="manage",
            action=f"replace {pool.named} while they are idle",
            code=f"mempressure run --manage -- {command}",
            rest_bytes=pool.replaced_bytes,
            peak_bytes=0,
        )
    ]


def _imports(pool: _Pool) -> list[Advice]:
    """Advise to import before the fork what every worker imports later."""
    if pool.server not in _SHARING:
        return []
    late = [{each.name: int(each.late_bytes) for each in worker.packages if each.loaded} for worker in pool.workers]
    sizes = {name: min(sizes.get(name, 0) for sizes in late) for name in late[0]}
    common = sorted((name for name in sizes if sizes[name] > 0), key=lambda name: (-sizes[name], name))
    size = (len(pool.workers) - 1) * sum(sizes[name] for name in common)
    inner = {name for package in pool.workers[0].packages if package.name in common for name in package.imports}
    names = [name for name in common if name not in inner] or common
    return [
        Advice(
            kind="import",
            action=f"with --share, import at the application's start what all {pool.named} import later",
            code=f"import {', '.join(names[:_MOST_NAMES])}",
            rest_bytes=int(SHARED_AT_REST * size),
            peak_bytes=int(SHARED_AT_PEAK * size),
        )
    ]


def _isolations(workers: Sequence[WorkerState], now: float) -> list[Advice]:
    """Advise which idle packages to run in a process of their own, which the workers share."""
    holders: dict[str, list[tuple[WorkerState, PackageState]]] = {}
    for worker in workers:
        for package in worker.packages:
            if package.loaded and package.mechanism == "recycle" and not package.keep_loaded:
                holders.setdefault(package.name, []).append((worker, package))
    idle = {name: held for name, held in holders.items() if all(_is_idle(*each, now) for each in held)}
    # What another of them imports comes back with that.
    inner = {name for held in idle.values() for _, package in held for name in package.imports}
    siblings = Counter(worker.supervisor_pid for worker in workers if worker.supervisor_pid)
    advised = [
        _isolation(
            name,
            sizes=[_size(package) for _, package in held],
            shares=[
                _private_share(worker, siblings[worker.supervisor_pid]) if package.source == SHARED_SOURCE else 1.0
                for worker, package in held
            ],
            seconds=min(_idle(*each, now) or 0.0 for each in held),
        )
        for name, held in idle.items()
        if name not in inner
    ]
    return [each for each in advised if each.rest_bytes > -each.peak_bytes]


def _isolation(name: str, *, sizes: Sequence[float], shares: Sequence[float], seconds: float) -> Advice:
    """Predict what isolating a package brings.

    Args:
        name: of the package.
        sizes: what it holds in each worker that has it, in bytes.
        shares: which share of that is the worker's own, 0 to 1.
        seconds: for how long it has been idle.
    """
    own = [size * share for size, share in zip(sizes, shares, strict=True)]
    # Pages that were there before the fork exist once for all of them, those that were written to once more each.
    rest = min(sum(sizes), sum(own) + max(sizes) - min(own))
    peak = rest - max(sizes) - PROCESS_BYTES
    return Advice(
        kind="isolate",
        action=f"run what uses {name}, unused for {_spoken(seconds)}, in a process of its own, which workers share and "
        "which ends when idle",
        code=f'@loader.isolated("{name}")',
        rest_bytes=int(rest),
        peak_bytes=int(peak),
    )


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _private_share(worker: WorkerState, siblings: int) -> float:
    """Return which share of what a worker had at its fork is its own, 0 to 1; the rest it has in common with others."""
    size = split(worker)
    own = size.private_bytes - (size.late or 0)
    # Proportional memory has a page that it shares with its siblings and their parent by one part in that many.
    common = size.shared * (siblings + 1)
    return own / (own + common) if own + common else 1.0


def _helpers(workers: Sequence[WorkerState], now: float) -> list[Advice]:
    served = any(worker.role for worker in workers)
    pids = [str(worker.pid) for worker in workers if role_of(worker, served=served) == HELPER]
    return [
        Advice(
            kind="helpers",
            action=f"end helper processes ({role.processes}) that nothing needs: they serve no requests",
            code=f"ps -o pid,rss,args -p {','.join(pids)}",
            rest_bytes=role.split.proportional_bytes,
            peak_bytes=role.split.proportional_bytes,
        )
        for role in roles(workers, now=now)
        if role.role == HELPER
    ]


def _is_idle(worker: WorkerState, package: PackageState, now: float) -> bool:
    seconds = _idle(worker, package, now)
    return seconds is not None and not package.active_calls and seconds >= package.timeout


def _idle(worker: WorkerState, package: PackageState, now: float) -> float | None:
    """Return how long a package is idle: by its worker where its own use is not seen, and no start of it needs it."""
    if package.last_used != UNKNOWN:
        return max(0.0, now - package.last_used)
    return idle_seconds(worker, now=now) if package.late_bytes > 0 or package.source == SHARED_SOURCE else None


def _size(package: PackageState) -> float:
    """Return what unloading a package would free; what it holds itself where that is not known."""
    return max(0.0, package.memory_bytes if package.freed_bytes == UNKNOWN else package.freed_bytes)
