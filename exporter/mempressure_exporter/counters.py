"""Counters that outlive the workers and cgroups they are read from.

A worker counts from its own start, the kernel from a cgroup's creation, and both counts end with what they belong to.
Here each total starts at 0 with the exporter and grows by every increase seen, so the end of a worker or of a cgroup
loses nothing. A worker's counts from before the exporter started are not an increase; those of a worker that started
later are, from 0 on. Times are Unix seconds and passed in.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic, TypeVar

from mempressure.act.mechanisms import mechanisms
from mempressure.measure.cgroup import EVENTS
from mempressure.state.node import AppReading

RETAIN_SECONDS = 3600.0
"""How long totals and baselines are kept after their app, package, worker or cgroup was last seen."""

MAX_BASELINES = 10_000
"""How many baselines are kept; beyond it those unseen for longest are dropped."""

IN_WORKER_MECHANISMS = tuple(each.name for each in mechanisms() if each.unloads_packages and not each.replaces_worker)
"""The mechanisms that unload and leave the worker running, so that it counts them; the actuator counts the others."""

Counts = tuple[float, ...]
Totals = TypeVar("Totals")

NO_COUNTS: Counts = (0.0, 0.0, 0.0, 0.0, 0.0)
"""Of one package in one worker: loads, refaults, load seconds, unloads and reclaimed bytes."""

Values = tuple[tuple[str, float], ...]
"""One family's series of a package: (label after the package's name, value); the label is empty where there is none."""


def largest(some: Counts, others: Counts) -> Counts:
    """Return the element-wise maximum of two tuples of counts."""
    # Not `tuple(map(...))`: CPython builds that outside of its free list of tuples and adds it there when it goes, up
    # to 2,000 of them: 160 KB.
    return some if some == others else (*map(max, some, others),)


class Baselines:
    """The counts that were last seen, by key."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[float, Counts]] = {}  # the longest unseen first

    def exchange(self, key: Hashable, counts: Counts, *, first: Counts, now: float) -> Counts:
        """Store the counts of `key` and return the previous ones, `first` where the key is new.

        Where `MAX_BASELINES` keys have been seen at `now`, a new key is not stored and `counts` is returned: no
        increase.
        """
        if key not in self._seen and not self._make_room(now):
            return counts
        _, before = self._seen.pop(key, (now, first))
        # Workers of one cgroup publish its counts a tick apart: a lagging one must not look like a fall.
        self._seen[key] = (now, largest(before, counts))
        return before

    def drop_old(self, now: float) -> None:
        """Drop what was not seen for `RETAIN_SECONDS`."""
        for key, (seen, _) in list(self._seen.items()):
            if seen > now - RETAIN_SECONDS:
                break
            del self._seen[key]

    def _make_room(self, now: float) -> bool:
        """Drop the key unseen for longest where there are too many; return False where all were seen at `now`."""
        if len(self._seen) < MAX_BASELINES:
            return True
        longest_unseen = next(iter(self._seen))
        # A key that is still in use is never dropped: when it comes again, its whole count would be added once more.
        if self._seen[longest_unseen][0] == now:
            return False
        del self._seen[longest_unseen]
        return True


class AppCounters(ABC, Generic[Totals]):
    """The totals of every app, kept until `RETAIN_SECONDS` after it was last seen.

    Attributes:
        totals: by app.

    Args:
        new: returns the totals of an app that is seen for the first time.
        max_apps: how many apps are counted; those seen first stay.
    """

    def __init__(self, new: Callable[[], Totals], *, max_apps: int) -> None:
        self.totals: dict[str, Totals] = {}
        self._new = new
        self._max_apps = max_apps
        self._seen: dict[str, float] = {}
        self._baselines = Baselines()

    def update(self, apps: Iterable[AppReading], *, now: float) -> None:
        """Add what the workers or cgroups of these apps have counted since the last update."""
        for app in apps:
            if app.name not in self.totals:
                if len(self.totals) >= self._max_apps:
                    continue
                self.totals[app.name] = self._new()
            self._seen[app.name] = now
            self._add(app, self.totals[app.name], now)
        self._baselines.drop_old(now)
        for name in [name for name, seen in self._seen.items() if seen <= now - RETAIN_SECONDS]:
            del self._seen[name], self.totals[name]

    @abstractmethod
    def _add(self, app: AppReading, totals: Totals, now: float) -> None:
        """Add the increases seen in one app to its totals."""


_STALLS = ("waiting", "stalled")
_cgroup_counts = attrgetter(
    *(f"cgroup_{kind}_seconds" for kind in _STALLS), *(f"cgroup_{event}_events" for event in EVENTS)
)


@dataclass(slots=True)
class CgroupTotals:
    """Stalls and events of one app's cgroups; what the kernel does not count there is absent."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By kind: waiting and stalled."""
    events: dict[str, float] = field(default_factory=dict)
    """By event, of `EVENTS`."""

    def add(self, before: Counts, counts: Counts) -> None:
        """Add the increases of one cgroup's counts; a count below 0 is unknown and adds nothing."""
        names = [(self.seconds, kind) for kind in _STALLS] + [(self.events, event) for event in EVENTS]
        for (totals, name), old, new in zip(names, before, counts, strict=True):
            if new >= 0:
                totals[name] = totals.get(name, 0.0) + (max(0.0, new - old) if old >= 0 else 0.0)


class CgroupCounters(AppCounters[CgroupTotals]):
    """Counters of the cgroups of every app's workers; each cgroup counts once however many workers are in it."""

    def __init__(self, *, max_apps: int) -> None:
        super().__init__(CgroupTotals, max_apps=max_apps)

    def _add(self, app: AppReading, totals: CgroupTotals, now: float) -> None:
        newest: dict[int | str, Counts] = {}
        for worker in app.workers:
            # Without a cgroup id, workers in one PID namespace are taken to share a cgroup.
            cgroup = worker.cgroup_id or worker.pid_namespace
            counts = _cgroup_counts(worker)
            newest[cgroup] = largest(newest.get(cgroup, counts), counts)
        for cgroup, counts in newest.items():
            # A cgroup seen first has no increase: it may be older than the app, and the app older than the exporter.
            totals.add(self._baselines.exchange((app.name, cgroup), counts, first=counts, now=now), counts)


@dataclass(slots=True)
class PackageProcessTotals:
    """Failures of one app's package processes."""

    deaths: float = 0.0
    start_failures: float = 0.0


class PackageProcessCounters(AppCounters[PackageProcessTotals]):
    """Failure counters of every app's package processes.

    Args:
        started: when the exporter started.
        max_apps: how many apps are counted; those seen first stay.
    """

    def __init__(self, *, started: float, max_apps: int) -> None:
        super().__init__(PackageProcessTotals, max_apps=max_apps)
        self._started = started

    def _add(self, app: AppReading, totals: PackageProcessTotals, now: float) -> None:
        for worker in app.workers:
            key = (app.name, worker.pid_namespace, worker.pid, worker.start_ticks)
            counts = (worker.process_deaths, worker.process_start_failures)
            first = counts if worker.started < self._started else (0.0, 0.0)
            before = self._baselines.exchange(key, counts, first=first, now=now)
            if counts != before:
                totals.deaths += max(0.0, counts[0] - before[0])
                totals.start_failures += max(0.0, counts[1] - before[1])


@dataclass(slots=True)
class PackageTotals:
    """Totals of one package of one app."""

    loads: float = 0.0
    refaults: float = 0.0
    load_seconds: float = 0.0
    unloads: dict[str, float] = field(default_factory=dict)
    """By mechanism, of `IN_WORKER_MECHANISMS` only; from 0 on, so that Prometheus sees the first increase."""
    reclaimed_bytes: dict[str, float] = field(default_factory=dict)
    values: tuple[Values, ...] = ((("", 0.0),), (("", 0.0),), (("", 0.0),), (), ())
    """All of the above, in their order."""

    def add(self, mechanism: str, before: Counts, now: Counts) -> None:
        """Add the increases of one worker's counts; a count that fell was reset to 0, as Prometheus reads it."""
        if mechanism in IN_WORKER_MECHANISMS and mechanism not in self.unloads:
            self.unloads[mechanism] = self.reclaimed_bytes[mechanism] = 0.0
        elif now == before:
            return
        grown = [new - old if new >= old else new for old, new in zip(before, now, strict=True)]
        self.loads += grown[0]
        self.refaults += grown[1]
        self.load_seconds += grown[2]
        if mechanism in IN_WORKER_MECHANISMS:
            self.unloads[mechanism] += grown[3]
            self.reclaimed_bytes[mechanism] += grown[4]
        self.values = (
            (("", self.loads),),
            (("", self.refaults),),
            (("", self.load_seconds),),
            tuple(self.unloads.items()),
            tuple(self.reclaimed_bytes.items()),
        )
