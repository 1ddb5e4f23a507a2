"""The package processes of an app, of which several workers may tell: pure functions that count each of them once.

Workers that publish the same `processes_id` for a package share its processes. What they say of the processes
themselves, such as their memory, is the same fact told several times: the newest reading of it counts. Calls and loads
are each worker's own, and add up.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from mempressure.state.packages_reading import PackagesReading
from mempressure.state.records import PROCESS_SOURCE, SHARED_SOURCE, PackageState, WorkerState

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

_MEASURED = ("loaded", "memory_bytes", "proportional_bytes")

_Values = tuple[float, ...]
"""Those of `_MEASURED`."""
_Place = tuple[int, tuple[str, str]]
"""The index of a package among its worker's, its name, and its `processes_id`."""


class PackageProcesses(NamedTuple):
    """The package processes of an app together; sizes in bytes."""

    number: int = 0
    private_bytes: float = 0.0
    proportional_bytes: float = 0.0


def package_processes(workers: Iterable[WorkerState]) -> PackageProcesses:
    """Return the number and the memory of the package processes of an app's workers, each of them counted once.

    Part of every scrape, so that what is known already is not looked at again: where workers have equal catalogs, the
    newest of them is all that is read.
    """
    own: list[_Values] = []
    shared: dict[tuple[str, str], _Values] = {}
    unknown: dict[int, list[_Place]] = {}
    """By catalog: where in it packages are of whose processes nothing is known yet."""
    for worker in sorted(workers, key=lambda worker: (-worker.sampled, worker.pid)):
        packages = worker.packages
        catalog = id(packages.options) if isinstance(packages, PackagesReading) else id(packages)
        places = unknown.get(catalog)
        if places is None:
            places = _places(packages)
        rows = _measured(packages) if places else ()
        left = unknown[catalog] = []
        for place in places:
            index, identity = place
            if identity in shared:
                continue
            values = rows[index]
            if not identity[1]:
                own.append(values)
                left.append(place)
            # What runs and was not measured yet says nothing; what has ended holds nothing.
            elif values[2] > 0 or not values[0] > 0:
                shared[identity] = values
            else:
                left.append(place)
    counted = [values for values in (*own, *shared.values()) if values[2] > 0]  # unknown sizes are below 0
    if not counted:
        return PackageProcesses()
    numbers, private, proportional = zip(*counted, strict=True)
    return PackageProcesses(
        int(sum(max(1, number) for number in numbers)),
        sum(size for size in private if size > 0),
        sum(proportional),
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


def _places(packages: Sequence[PackageState]) -> list[_Place]:
    """Return where in a worker's packages those are that live in processes of their own."""
    if isinstance(packages, PackagesReading):
        return [
            (index, (each["name"], each["processes_id"]))
            for index, each in enumerate(packages.options)
            if each["source"] == PROCESS_SOURCE
        ]
    return [
        (index, (each.name, each.processes_id)) for index, each in enumerate(packages) if each.source == PROCESS_SOURCE
    ]


def _measured(packages: Sequence[PackageState]) -> list[_Values]:
    """Return the numbers of `_MEASURED` of each package; what was read from a file is not decoded for it."""
    if isinstance(packages, PackagesReading):
        return list(zip(*packages.columns(*_MEASURED), strict=True))
    return [(each.loaded, each.memory_bytes, each.proportional_bytes) for each in packages]


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


def _goodness(held: Held) -> tuple[bool, float, int]:
    worker, package = held
    return (package.memory_bytes > 0 or not package.loaded > 0, worker.sampled, -worker.pid)


def _process_of(worker: WorkerState) -> tuple[str, int, int]:
    return (worker.pid_namespace, worker.pid, worker.start_ticks)
