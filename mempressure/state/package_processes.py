"""The package processes of an app, of which several workers may tell: pure functions that count each of them once.

Workers that publish the same `processes_id` for a package share its processes. What they say of the processes
themselves, such as their memory, is the same fact told several times: the newest reading of it counts. Calls and loads
are each worker's own, and add up.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import NamedTuple

from mempressure.state.packages_reading import PackagesReading
from mempressure.state.records import SHARED_SOURCE, PackageState, WorkerState

Held = tuple[WorkerState, PackageState]
"""A package, and the worker that has it."""

_ADDED = (
    "active_calls",
    "waiting_calls",
    "result_bytes",
    "uses",
    "loads",
    "refaults",
    "load_seconds",
    "unloads",
    "reclaimed_bytes",
)
"""What workers that share processes count each for itself."""

_IDENTITY, _MEASURED = ("name", "processes_id"), ("loaded", "memory_bytes", "proportional_bytes")
_identity_in, _identity_of = itemgetter(*_IDENTITY), attrgetter(*_IDENTITY)

_Values = tuple[float, float, float]
"""Those of `_MEASURED`."""


class PackageProcesses(NamedTuple):
    """The package processes of an app together; sizes in bytes."""

    number: int = 0
    private_bytes: float = 0.0
    proportional_bytes: float = 0.0


def package_processes(workers: Iterable[WorkerState]) -> PackageProcesses:
    """Return the number and the memory of the package processes of an app's workers, each of them counted once.

    Part of every scrape: 0.05 us a package where no worker has a process, else 0.3 us.
    """
    measured = [
        (worker.packages, columns)
        for worker in sorted(workers, key=attrgetter("sampled"))
        if worker.packages and (columns := _columns(worker.packages))
    ]
    own: list[_Values] = []
    shared: dict[tuple[str, str], _Values] = {}
    if any(max(proportional) > 0 for _, (_, _, proportional) in measured):
        for packages, columns in measured:
            for identity, values in zip(_identities(packages), zip(*columns, strict=True), strict=True):
                # What runs and was not measured yet says nothing; what has ended holds nothing.
                if values[2] > 0 or not values[0] > 0:
                    if identity[1]:
                        shared[identity] = values
                    else:
                        own.append(values)
    counted = [values for values in (*own, *shared.values()) if values[2] > 0]  # unknown sizes are below 0
    return PackageProcesses(
        int(sum(max(1.0, loaded) for loaded, _, _ in counted)),
        sum(max(0.0, private) for _, private, _ in counted),
        sum(proportional for _, _, proportional in counted),
    )


def sets_of(held: Iterable[Held]) -> list[list[Held]]:
    """Return the packages by the processes that they live in: those of workers that share them are one set.

    The best reading of each set comes first: the newest of those that have measured what runs.
    """
    sets: dict[object, list[Held]] = {}
    for worker, package in held:
        own = (worker.pid_namespace, worker.pid, worker.start_ticks)
        sets.setdefault((package.name, package.processes_id or own), []).append((worker, package))
    return [sorted(each, key=_goodness, reverse=True) for each in sets.values()]


def together(held: Iterable[Held]) -> list[Held]:
    """Return each set of `sets_of` as one package, with the worker that has the best reading of it.

    Its calls and loads are those of all workers that share it, and so are the last use and the last refault.
    """
    return [(each[0][0], _as_one([package for _, package in each])) for each in sets_of(held)]


def memory_of(held: Iterable[Held]) -> float:
    """Return what one package holds over several workers, in bytes.

    What they share with their parent counts once, and so do package processes that they share.
    """
    own, shared = 0.0, 0.0
    for each in sets_of(held):
        _, package = each[0]
        if package.source == SHARED_SOURCE:
            shared = max(shared, package.memory_bytes)
        else:
            own += package.memory_bytes
    return own + shared


def shared_names(workers: Iterable[WorkerState], worker: WorkerState) -> set[str]:
    """Return the packages whose processes a worker shares with others of these: its end does not end them."""
    others = [each for each in workers if _process_of(each) != _process_of(worker)]
    known = {(package.name, package.processes_id) for each in others for package in each.packages}
    return {each.name for each in worker.packages if each.processes_id and (each.name, each.processes_id) in known}


def _columns(packages: Sequence[PackageState]) -> list[Sequence[float]]:
    """Return the numbers of `_MEASURED` of all packages; what was read from a file is not decoded for it."""
    if isinstance(packages, PackagesReading):
        return [*packages.columns(*_MEASURED)]
    return [[getattr(package, name) for package in packages] for name in _MEASURED]


def _identities(packages: Sequence[PackageState]) -> Iterable[tuple[str, str]]:
    if isinstance(packages, PackagesReading):
        return map(_identity_in, packages.options)
    return map(_identity_of, packages)


def _as_one(packages: Sequence[PackageState]) -> PackageState:
    best = packages[0]
    if len(packages) == 1:
        return best
    refaulted = max(packages, key=attrgetter("last_refault", "refault_level"))
    return best.replaced(
        **{name: sum(getattr(package, name) for package in packages) for name in _ADDED},
        keep_loaded=any(package.keep_loaded for package in packages),
        last_used=max(package.last_used for package in packages),
        refault_level=refaulted.refault_level,
        last_refault=refaulted.last_refault,
        refault_delay=refaulted.refault_delay,
    )


def _goodness(held: Held) -> tuple[bool, float, float, int]:
    worker, package = held
    return (package.memory_bytes > 0 or not package.loaded > 0, worker.sampled, package.memory_bytes, -worker.pid)


def _process_of(worker: WorkerState) -> tuple[str, int, int]:
    return (worker.pid_namespace, worker.pid, worker.start_ticks)
