"""Every package of every app, over the workers that hold it, kept up to date with what changed since the last scrape.

Most packages are idle most of the time, and that is what keeps a scrape cheap: with 1,250 packages in eight workers
each, finding what changed takes 1 ms, reading and adding them all up again 60.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from operator import itemgetter

from mempressure.state.packages_reading import PackagesReading
from mempressure.state.records import PACKAGE_VALUES, WorkerState
from mempressure_exporter.baselines import RETAIN_SECONDS
from mempressure_exporter.counters import NOTHING, Counts
from mempressure_exporter.package_series import ALL_FAMILIES, Package, WorkerKey

REMEMBER_SECONDS = 600.0
"""How long a worker that is not seen is remembered: a hung one comes back with what was counted already."""

MAX_REMEMBERED = 100_000
"""How many (worker, package) pairs are remembered; beyond it the workers unseen for longest are forgotten."""

_LOADED, _MEMORY, _LAST_USED = map(PACKAGE_VALUES.index, ("loaded", "memory_bytes", "last_used"))
_counted = itemgetter(*map(PACKAGE_VALUES.index, ("loads", "refaults", "load_seconds", "unloads", "reclaimed_bytes")))


@dataclass(slots=True)
class _Worker:
    """What a worker said when it was last seen."""

    packages: PackagesReading
    seen: float
    gone: dict[str, Counts] = field(default_factory=dict)
    """The last counts of packages that it no longer names."""

    @property
    def remembered(self) -> int:
        return len(self.packages) + len(self.gone)

    def counts(self) -> dict[str, Counts]:
        now = {each["name"]: _counts(self.packages.values(place)) for place, each in enumerate(self.packages.options)}
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
        self._here: set[WorkerKey] = set()
        self._at_hand: set[WorkerKey] = set()
        """Of those that are here, who needs no taking in."""
        self.packages: dict[tuple[str, str], Package] = {}
        """By (app, package), in the order of their first sight."""
        self._unheld: set[tuple[str, str]] = set()
        """Those that no worker holds."""
        self.series = 0
        """Of all packages together."""

    def update(self, workers: Iterable[WorkerState], *, now: float) -> Collection[int]:
        """Bring every package up to date with the workers that live now.

        Returns:
            The places, in `PACKAGE_FAMILIES`, of the families that have changed.
        """
        changed: set[tuple[str, str]] = set()
        here = set()
        for worker in workers:
            key = (worker.app, worker.pid_namespace, worker.pid, worker.start_ticks)
            known, packages = self._workers.pop(key, None), _published(worker)
            if known is not None and known.packages.options is packages.options and key in self._at_hand:
                for place in packages.changed_since(known.packages):
                    self._hold(key, packages, place, _counts(known.packages.values(place)), changed)
                known.packages, known.seen = packages, now
            else:
                known = self._meet(key, worker, known, changed, now)
            self._workers[key] = known
            here.add(key)
        for key in self._here - here:
            self._let_go(key, {each["name"] for each in self._workers[key].packages.options}, changed, now)
        self._here = self._at_hand = here
        stale: set[int] = set()
        for name in changed:
            package = self.packages[name]
            self.series -= package.series
            stale.update(package.update())
            self.series += package.series
        return ALL_FAMILIES if self._forget(now) else stale

    def _meet(
        self, key: WorkerKey, worker: WorkerState, known: _Worker | None, changed: set[tuple[str, str]], now: float
    ) -> _Worker:
        """Take in a worker that is new, was not seen for a while, or has other packages than before."""
        packages = _published(worker)
        # What it did before the exporter started is no increase.
        was_here_before = known is None and worker.started < self._started
        before = known.counts() if known else {}
        gone = {name: counts for name, counts in before.items() if (worker.app, name) in self.packages}
        for place, options in enumerate(packages.options):
            counts = _counts(packages.values(place)) if was_here_before else before.get(options["name"], NOTHING)
            self._hold(key, packages, place, counts, changed)
            gone.pop(options["name"], None)
        self._let_go(key, gone, changed, now)
        return _Worker(packages, now, gone)

    def _hold(
        self,
        key: WorkerKey,
        packages: PackagesReading,
        place: int,
        before: Counts,
        changed: set[tuple[str, str]],
    ) -> None:
        """Note what a worker says of one package, and count what grew."""
        options, values = packages.options[place], packages.values(place)
        name = (key[0], options["name"])
        package = self.packages.get(name)
        if package is None:
            if len(self.packages) >= self._max_packages:
                return
            package = self.packages[name] = Package(*name)
        self._unheld.discard(name)
        package.hold(
            key,
            (
                values[_LOADED] > 0,
                int(values[_MEMORY]),
                options["source"],
                values[_LAST_USED],
                options["verdict"],
            ),
        )
        package.totals.add(options["mechanism"], before, _counts(values))
        changed.add(name)

    def _let_go(self, key: WorkerKey, names: Iterable[str], changed: set[tuple[str, str]], now: float) -> None:
        for name in names:
            package = self.packages.get((key[0], name))
            if package is not None and package.let_go(key, now=now):
                changed.add((key[0], name))
                if not package.holders:
                    self._unheld.add((key[0], name))

    def _forget(self, now: float) -> bool:
        """Forget workers and packages that were gone for long; return whether there were such packages."""
        if len(self._workers) > len(self._here):
            self._forget_workers(now)
        old = [name for name in self._unheld if self.packages[name].left <= now - RETAIN_SECONDS]
        for name in old:
            self._unheld.remove(name)
            self.series -= self.packages.pop(name).series
        if old:  # there is room for those that were beyond the bound: whoever lives is taken in again
            self._at_hand = set()
        return bool(old)

    def _forget_workers(self, now: float) -> None:
        remembered = sum(worker.remembered for worker in self._workers.values())
        for key, worker in list(self._workers.items()):
            is_recent = worker.seen > now - REMEMBER_SECONDS
            # Who lives is never forgotten: it would be counted from 0 again.
            if worker.seen == now or (is_recent and remembered <= MAX_REMEMBERED):
                break
            del self._workers[key]
            remembered -= worker.remembered


def _published(worker: WorkerState) -> PackagesReading:
    assert isinstance(worker.packages, PackagesReading), "it was not read from a file"  # noqa: S101 -- for mypy
    return worker.packages


def _counts(values: tuple[float, ...]) -> Counts:
    counts: Counts = _counted(values)
    # A worker may publish anything, and a counter must not fall.
    return counts if min(counts) >= 0 else NOTHING
