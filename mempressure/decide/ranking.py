"""Which of several idle packages goes first: pure functions over what workers published.

By value this is GreedyDual-Size-Frequency (L. Cherkasova, "Improving WWW Proxies Performance with
Greedy-Dual-Size-Frequency Caching Policy", HP Laboratories, 1998): the lowest

    H = L + uses x reload_seconds / freeable_bytes

is unloaded, and L, the ageing level, is raised to it. L enters the value of a package as it was when the package was
last seen used, so one that was used a lot, long ago, is overtaken by those used since.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mempressure.state.node import AppReading
from mempressure.state.package_processes import Held, together
from mempressure.state.records import PackageState, WorkerState

LEAST_BYTES = 4096.0
"""What gives back less than a page counts as a page: a value stays finite."""


@dataclass(frozen=True, slots=True)
class Ageing:
    """The ageing level and, by worker and package, how often each was used and the level when that was first seen."""

    level: float = 0.0
    marks: Mapping[tuple[str, int, int, str], tuple[float, float]] = field(default_factory=dict)

    def level_of(self, worker: WorkerState, package: PackageState) -> float:
        """Return the level at the package's last use; the present one where nothing is known of it."""
        return self.marks.get(_key(worker, package), (0.0, self.level))[1]


def observed(ageing: Ageing, apps: Iterable[AppReading]) -> Ageing:
    """Return the ageing after a look at all workers: what was used since the last look is marked with the level now.

    What is not loaded any more is forgotten, so marks never outnumber packages.
    """
    marks = {}
    for app in apps:
        for worker in app.workers:
            for package in worker.packages:
                if package.loaded:
                    key = _key(worker, package)
                    known = ageing.marks.get(key)
                    seen = known is not None and known[0] == package.uses
                    marks[key] = known if known is not None and seen else (package.uses, ageing.level)
    return replace(ageing, marks=marks)


def unloaded(ageing: Ageing, value: float) -> Ageing:
    """Return the ageing after something of this value was unloaded; the level never falls."""
    return replace(ageing, level=max(ageing.level, value))


def value_of(held: Iterable[Held], ageing: Ageing) -> float:
    """Return H of what one action unloads: what loading it again would cost a byte, above the ageing level.

    The same package in several workers is worth what it is worth in one; several packages of one worker are worth what
    all of them cost over what all of them give back. Processes that workers share are worth the calls of all of them,
    and give back their memory once.
    """
    held = list(held)
    if not held:
        return ageing.level
    packages = [package for _, package in together(held)]
    cost = sum(package.uses * reload_seconds(package) for package in packages)
    size = max(LEAST_BYTES, sum(freeable_bytes(package) for package in packages))
    return max(ageing.level_of(worker, package) for worker, package in held) + cost / size


def reload_seconds(package: PackageState) -> float:
    """Return what loading the package took on average, in seconds; 0 where no load was measured."""
    # Counts are whole numbers, but a worker may publish nonsense: a fraction must not make a value infinite.
    return package.load_seconds / max(1.0, package.loads) if package.loads > 0 else 0.0


def freeable_bytes(package: PackageState) -> float:
    """Return what unloading gives back: what it gave on average, for a package unloaded before, else what it holds."""
    return package.reclaimed_bytes / max(1.0, package.unloads) if package.unloads > 0 else package.memory_bytes


def last_use(held: Iterable[Held]) -> float:
    """Return when any of these was used last, in Unix seconds; -1 where none ever was."""
    return max((package.last_used for _, package in held), default=-1.0)


def _key(worker: WorkerState, package: PackageState) -> tuple[str, int, int, str]:
    return (worker.pid_namespace, worker.pid, worker.start_ticks, package.name)
