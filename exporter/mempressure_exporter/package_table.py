"""The table of all packages of all apps, updated from scrape to scrape by what has changed in the workers' states.

Most packages are idle most of the time: with 1,250 packages in eight workers each, finding what changed takes 1 ms,
reading and summing everything again 60 ms.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from operator import itemgetter

from mempressure.state.packages_reading import PackagesReading
from mempressure.state.records import PACKAGE_VALUES, WorkerState
from mempressure_exporter.counters import NO_COUNTS, RETAIN_SECONDS, Counts
from mempressure_exporter.package_series import ALL_FAMILIES, Holding, Package, WorkerKey

REMEMBER_SECONDS = 600.0
"""How long a worker that is not seen is remembered: a hung one comes back with what was counted already."""

MAX_REMEMBERED = 100_000
"""How many (worker, package) pairs are remembered; beyond it the workers unseen for longest are forgotten."""

_held = itemgetter(*map(PACKAGE_VALUES.index, ("memory_bytes", "last_used", "loaded", "waiting_calls", "result_bytes")))
_counted = itemgetter(*map(PACKAGE_VALUES.index, ("loads", "refaults", "load_seconds", "unloads", "reclaimed_bytes")))


@dataclass(slots=True)
class _Worker:
    """A worker's packages when it was last seen."""

    packages: PackagesReading
    seen: float
    gone: dict[str, Counts] = field(default_factory=dict)
    """The last counts of packages that it no longer publishes."""

    @property
    def remembered(self) -> int:
        return len(self.packages) + len(self.gone)

    def counts(self) -> dict[str, Counts]:
        now = {each["name"]: _counts(self.packages.values(index)) for index, each in enumerate(self.packages.options)}
        return self.gone | now


class PackageTable:
    """The packages of all apps. Times are Unix seconds and passed in.

    Args:
        started: when the exporter started.
        max_packages: how many are kept; those beyond it are neither summed nor counted.
    """

    def __init__(self, *, started: float, max_packages: int) -> None:
        self._started = started
        self._max_packages = max_packages
        self._workers: dict[WorkerKey, _Worker] = {}  # the longest unseen first
        self._living: set[WorkerKey] = set()
        """Those seen in the last update."""
        self._current: set[WorkerKey] = set()
        """Those of the living for which only changes need to be looked at."""
        self.packages: dict[tuple[str, str], Package] = {}
        """By (app, package), in the order in which they were first seen."""
        self._unheld: set[tuple[str, str]] = set()
        """Those that no worker holds."""
        self.series = 0
        """Of all packages together."""

    def update(self, workers: Iterable[WorkerState], *, now: float) -> Collection[int]:
        """Bring every package up to date with the living workers.

        Returns:
            The indexes, in `PACKAGE_FAMILIES`, of the families that have changed.
        """
        changed: set[tuple[str, str]] = set()
        living = set()
        for worker in workers:
            key = (worker.app, worker.pid_namespace, worker.pid, worker.start_ticks)
            known, packages = self._workers.pop(key, None), _published(worker)
            if known is not None and known.packages.options is packages.options and key in self._current:
                for index in packages.changed_since(known.packages):
                    self._hold(key, worker, index, _counts(known.packages.values(index)), changed)
                known.packages, known.seen = packages, now
            else:
                known = self._read_whole(key, worker, known, changed, now)
            self._workers[key] = known
            living.add(key)
        for key in self._living - living:
            self._remove(key, {each["name"] for each in self._workers[key].packages.options}, changed, now)
        self._living = self._current = living
        stale: set[int] = set()
        for name in changed:
            package = self.packages[name]
            self.series -= package.series
            stale.update(package.update())
            self.series += package.series
        return ALL_FAMILIES if self._forget(now) else stale

    def _read_whole(
        self, key: WorkerKey, worker: WorkerState, known: _Worker | None, changed: set[tuple[str, str]], now: float
    ) -> _Worker:
        """Read all packages of a worker that is new, was not seen for a while, or has other packages than before."""
        packages = _published(worker)
        # Its counts from before the exporter started are not an increase.
        is_older = known is None and worker.started < self._started
        before = known.counts() if known else {}
        gone = {name: counts for name, counts in before.items() if (worker.app, name) in self.packages}
        for index, options in enumerate(packages.options):
            counts = _counts(packages.values(index)) if is_older else before.get(options["name"], NO_COUNTS)
            self._hold(key, worker, index, counts, changed)
            gone.pop(options["name"], None)
        self._remove(key, gone, changed, now)
        return _Worker(packages, now, gone)

    def _hold(
        self,
        key: WorkerKey,
        worker: WorkerState,
        index: int,
        before: Counts,
        changed: set[tuple[str, str]],
    ) -> None:
        """Store a worker's state of one package, and add the increases of its counts."""
        packages = _published(worker)
        options, values = packages.options[index], packages.values(index)
        name = (key[0], options["name"])
        package = self.packages.get(name)
        if package is None:
            if len(self.packages) >= self._max_packages:
                return
            package = self.packages[name] = Package(*name)
        self._unheld.discard(name)
        size, used, *numbers = _held(values)
        # A worker may publish any number, and none of these is ever negative.
        loaded, waiting, results = [int(number) if number > 0 else 0 for number in numbers]
        source, verdict, processes = options["source"], options["verdict"], options["processes_id"]
        told = (loaded, int(size), source, used, verdict, waiting, results, processes, worker.sampled)
        package.hold(key, Holding(*told))
        package.totals.add(options["mechanism"], before, _counts(values))
        changed.add(name)

    def _remove(self, key: WorkerKey, names: Iterable[str], changed: set[tuple[str, str]], now: float) -> None:
        """Remove a worker from the holders of these packages."""
        for name in names:
            package = self.packages.get((key[0], name))
            if package is not None and package.remove(key, now=now):
                changed.add((key[0], name))
                if not package.holders:
                    self._unheld.add((key[0], name))

    def _forget(self, now: float) -> bool:
        """Forget workers and packages that were not seen for long; return whether any package was forgotten."""
        if len(self._workers) > len(self._living):
            self._forget_workers(now)
        old = [name for name in self._unheld if self.packages[name].left <= now - RETAIN_SECONDS]
        for name in old:
            self._unheld.remove(name)
            self.series -= self.packages.pop(name).series
        if old:  # there is room for packages that were beyond the limit: the next update reads every worker whole
            self._current = set()
        return bool(old)

    def _forget_workers(self, now: float) -> None:
        remembered = sum(worker.remembered for worker in self._workers.values())
        for key, worker in list(self._workers.items()):
            is_recent = worker.seen > now - REMEMBER_SECONDS
            # A living worker is never forgotten: it would be counted from 0 again.
            if worker.seen == now or (is_recent and remembered <= MAX_REMEMBERED):
                break
            del self._workers[key]
            remembered -= worker.remembered


def _published(worker: WorkerState) -> PackagesReading:
    assert isinstance(worker.packages, PackagesReading), "it was not read from a file"  # noqa: S101 -- for mypy
    return worker.packages


def _counts(values: tuple[float, ...]) -> Counts:
    counts: Counts = _counted(values)
    # A worker may publish any number, and a counter must not fall.
    return counts if min(counts) >= 0 else NO_COUNTS
