"""Every package of every app, over the workers that hold it, kept up to date with what changed since the last scrape.

Most packages are idle most of the time, and that is what keeps a scrape cheap: with 1,250 packages in eight workers
each, comparing their rows takes 1 ms, reading and adding them all up again 60.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import ne
from typing import Any

from mempressure.state import PACKAGE_VALUES, PackageState, WorkerState, least_mild
from mempressure.state_reading import ROW, PublishedPackages
from mempressure_exporter.counters import NOTHING, Counts, PackageTotals
from mempressure_exporter.exposition import Sample

REMEMBER_SECONDS = 600.0
"""How long a worker that is not seen is remembered: a hung one comes back with what was counted already."""

MAX_REMEMBERED = 100_000
"""How many (worker, package) pairs are remembered; beyond it the workers unseen for longest are forgotten."""

RETAIN_SECONDS = 3600.0
"""How long a package is kept that no worker has any more."""

_LOADED, _MEMORY, _LAST_USED = map(PACKAGE_VALUES.index, ("loaded", "memory_bytes", "last_used"))
_COUNTS = [PACKAGE_VALUES.index(name) for name in ("loads", "refaults", "load_seconds", "unloads", "reclaimed_bytes")]

_WorkerKey = tuple[str, str, int, int]
_Options = dict[str, Any]


@dataclass(slots=True)
class Package:
    """One package of one app: who holds it now, and what was counted since the exporter started."""

    app: str
    name: str
    totals: PackageTotals = field(default_factory=PackageTotals)
    holders: dict[_WorkerKey, tuple[_Options, bytes]] = field(default_factory=dict)
    left: float = 0.0
    """When its last holder was gone, in Unix seconds."""
    samples: list[Sample] = field(default_factory=list)
    """As of the last update."""
    lines: tuple[str, ...] | None = None
    """What the samples are in text, a text a family; None until somebody writes it."""
    written: dict[tuple[str, tuple[str, ...]], tuple[str, float, str]] = field(default_factory=dict)
    """By family and labels, what a line starts with, and the value and the line that were written last."""

    def add_up(self) -> None:
        """Make the samples anew from what the holders say."""
        named = (self.app, self.name)
        memory: dict[str, float] = {}
        loaded, last_used, verdict = 0, -1.0, ""
        for options, row in self.holders.values():
            values = ROW.unpack(row)
            loaded += values[_LOADED] > 0
            if values[_MEMORY] >= 0:
                memory[options["source"]] = memory.get(options["source"], 0.0) + values[_MEMORY]
            last_used = max(last_used, values[_LAST_USED])
            # Workers that started before and after a check differ for a while: then the most cautious is shown.
            if options["verdict"] != verdict:
                verdict = least_mild((options["verdict"], verdict))
        samples: list[Sample] = [
            ("mempressure_package_memory_bytes", (*named, source), size) for source, size in memory.items()
        ]
        if self.holders:
            samples.append(("mempressure_package_loaded_workers", named, loaded))
        if last_used >= 0:
            samples.append(("mempressure_package_last_used_timestamp_seconds", named, last_used))
        if verdict:
            samples.append(("mempressure_package_verdict", (*named, verdict), 1))
        self.samples, self.lines = samples + self.totals.samples(named), None


@dataclass(slots=True)
class _Worker:
    """What a worker said when it was last seen."""

    options: Sequence[_Options]
    rows: Sequence[bytes]
    seen: float
    gone: dict[str, bytes] = field(default_factory=dict)
    """The last rows of packages that it no longer names."""

    def last_rows(self) -> dict[str, bytes]:
        return self.gone | {options["name"]: row for options, row in zip(self.options, self.rows, strict=True)}


class PackageTable:
    """The packages of all apps. Times are Unix seconds and passed in.

    Args:
        started: when the exporter started.
        max_packages: how many are kept; those beyond it are neither summed nor counted.
    """

    def __init__(self, *, started: float, max_packages: int) -> None:
        self._started = started
        self._max_packages = max_packages
        self._workers: dict[_WorkerKey, _Worker] = {}  # the longest unseen first
        self._here: set[_WorkerKey] = set()
        self._has_new_room = False  # for packages that were beyond the bound: whoever lives is taken in again
        self.packages: dict[tuple[str, str], Package] = {}
        """By (app, package), in the order of their first sight."""
        self.series = 0
        """Of all packages together."""

    def update(self, workers: Iterable[WorkerState], *, now: float) -> None:
        """Bring every package up to date with the workers that live now."""
        changed: set[tuple[str, str]] = set()
        here = set()
        for worker in workers:
            key = (worker.app, worker.pid_namespace, worker.pid, worker.start_ticks)
            known = self._workers.pop(key, None)
            options, rows = _published(worker.packages)
            if known is not None and known.options is options and key in self._here and not self._has_new_room:
                known.rows, before = rows, known.rows
                known.seen = now
                for place, differs in enumerate(map(ne, before, rows)):
                    if differs:
                        self._hold(key, options[place], before[place], rows[place], changed)
            else:
                known = self._meet(key, worker, known, changed, now)
            self._workers[key] = known
            here.add(key)
        for key in self._here - here:
            self._let_go(key, {options["name"] for options in self._workers[key].options}, changed, now)
        self._here = here
        for name in changed:
            package = self.packages[name]
            self.series -= len(package.samples)
            package.add_up()
            self.series += len(package.samples)
        self._forget(now)

    def _meet(
        self, key: _WorkerKey, worker: WorkerState, known: _Worker | None, changed: set[tuple[str, str]], now: float
    ) -> _Worker:
        """Take in a worker that is new, was not seen for a while, or has other packages than before."""
        options, rows = _published(worker.packages)
        # What it did before the exporter started is no increase.
        was_here_before = known is None and worker.started < self._started
        before = known.last_rows() if known else {}
        for each, row in zip(options, rows, strict=True):
            self._hold(key, each, row if was_here_before else before.get(each["name"]), row, changed)
        gone = {name: row for name, row in before.items() if (worker.app, name) in self.packages}
        for each in options:
            gone.pop(each["name"], None)
        self._let_go(key, gone, changed, now)
        return _Worker(options, rows, now, gone)

    def _hold(
        self, key: _WorkerKey, options: _Options, before: bytes | None, row: bytes, changed: set[tuple[str, str]]
    ) -> None:
        """Note what a worker says of one package, and count what grew."""
        name = (key[0], options["name"])
        package = self.packages.get(name)
        if package is None:
            if len(self.packages) >= self._max_packages:
                return
            package = self.packages[name] = Package(*name)
        package.holders[key] = (options, row)
        package.totals.add(options["mechanism"], _counts(before) if before else NOTHING, _counts(row))
        changed.add(name)

    def _let_go(self, key: _WorkerKey, names: Iterable[str], changed: set[tuple[str, str]], now: float) -> None:
        for name in names:
            package = self.packages.get((key[0], name))
            if package is not None and package.holders.pop(key, None) is not None:
                package.left = now
                changed.add((key[0], name))

    def _forget(self, now: float) -> None:
        remembered = sum(len(worker.rows) + len(worker.gone) for worker in self._workers.values())
        for key, worker in list(self._workers.items()):
            is_recent = worker.seen > now - REMEMBER_SECONDS
            # Who lives is never forgotten: it would be counted from 0 again.
            if worker.seen == now or (is_recent and remembered <= MAX_REMEMBERED):
                break
            del self._workers[key]
            remembered -= len(worker.rows) + len(worker.gone)
        old = [
            n for n, package in self.packages.items() if not package.holders and package.left <= now - RETAIN_SECONDS
        ]
        for name in old:
            self.series -= len(self.packages.pop(name).samples)
        if old:  # there is room for those that were beyond the bound: whoever lives is taken in again
            self._here = set()


def _published(packages: Sequence[PackageState]) -> tuple[Sequence[_Options], Sequence[bytes]]:
    assert isinstance(packages, PublishedPackages), "workers are read from their state files"  # noqa: S101 -- for mypy
    return packages.options, packages.rows


def _counts(row: bytes) -> Counts:
    values = ROW.unpack(row)
    counts = tuple(values[place] for place in _COUNTS)
    # A worker may publish anything, and a counter must not fall.
    return counts if min(counts) >= 0 else NOTHING
