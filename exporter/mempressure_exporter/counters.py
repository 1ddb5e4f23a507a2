"""Counters that outlive the workers they come from.

A worker counts from its own start and takes its numbers with it when it ends. Here each total starts at 0 with the
exporter and grows by every increase that is seen in a worker. What a worker did before the exporter started is no
increase; what one did that started after it is, from 0 on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from mempressure.state import WorkerState

IN_WORKER_MECHANISMS = ("stop", "evict")
"""The mechanisms that a worker lives to count; `recycle` ends it, so the actuator counts that."""

REMEMBER_SECONDS = 600.0
"""How long a worker that is not seen is remembered: a hung one comes back with what was counted already."""

MAX_BASELINES = 100_000
"""How many (worker, package) pairs are remembered; beyond it the workers unseen for longest are forgotten."""

RETAIN_SECONDS = 3600.0
"""How long a total is kept that no worker has any more."""

_COUNTS = attrgetter("loads", "refaults", "load_seconds", "unloads", "reclaimed_bytes")
_NOTHING = (0.0, 0.0, 0.0, 0.0, 0.0)

_Counts = tuple[float, float, float, float, float]
_WorkerKey = tuple[str, str, int, int]


@dataclass(slots=True)
class PackageTotals:
    """What was counted of one package of one app since the exporter started."""

    loads: float = 0.0
    refaults: float = 0.0
    load_seconds: float = 0.0
    unloads: dict[str, float] = field(default_factory=dict)
    """By mechanism, of `IN_WORKER_MECHANISMS` only."""
    reclaimed_bytes: dict[str, float] = field(default_factory=dict)
    seen: float = 0.0

    def expect(self, mechanism: str) -> None:
        """Let the counters of a mechanism begin at 0, so that the first increase shows."""
        if mechanism in IN_WORKER_MECHANISMS:
            self.unloads.setdefault(mechanism, 0.0)
            self.reclaimed_bytes.setdefault(mechanism, 0.0)

    def add(self, mechanism: str, before: _Counts, now: _Counts) -> None:
        """Add what a worker's counts grew by; one that fell was set back to 0 on the way, as Prometheus reads it."""
        grown = [new - old if new >= old else new for old, new in zip(before, now, strict=True)]
        self.loads += grown[0]
        self.refaults += grown[1]
        self.load_seconds += grown[2]
        if mechanism in IN_WORKER_MECHANISMS:
            self.unloads[mechanism] += grown[3]
            self.reclaimed_bytes[mechanism] += grown[4]


@dataclass(slots=True)
class _Baseline:
    counts: dict[str, _Counts]
    seen: float


class Counters:
    """The totals of every package. Times are Unix seconds and passed in.

    Args:
        started: when the exporter started.
        max_packages: how many totals are kept; packages beyond it are not counted.
    """

    def __init__(self, *, started: float, max_packages: int) -> None:
        self._started = started
        self._max_packages = max_packages
        self._baselines: dict[_WorkerKey, _Baseline] = {}  # the longest unseen first
        self.totals: dict[tuple[str, str], PackageTotals] = {}
        """By (app, package), in the order of their first sight."""

    def update(self, workers: Iterable[WorkerState], *, now: float) -> None:
        """Add what the workers that live now have counted since they were last seen."""
        for worker in workers:
            key = (worker.app, worker.pid_namespace, worker.pid, worker.start_ticks)
            baseline = self._baselines.pop(key, None)
            was_here_before = baseline is None and worker.started < self._started
            baseline = baseline or _Baseline({}, now)
            baseline.seen = now
            self._baselines[key] = baseline
            for package in worker.packages:
                totals = self._totals(worker.app, package.name, now)
                if totals is None:
                    continue
                totals.expect(package.mechanism)
                counts: _Counts = _COUNTS(package)
                if min(counts) < 0:  # a worker may publish anything, and a counter must not fall
                    counts = _NOTHING
                if was_here_before:
                    baseline.counts[package.name] = counts
                before = baseline.counts.get(package.name, _NOTHING)
                if counts != before:
                    totals.add(package.mechanism, before, counts)
                    baseline.counts[package.name] = counts
        self._forget(now)

    def _totals(self, app: str, package: str, now: float) -> PackageTotals | None:
        totals = self.totals.get((app, package))
        if totals is None:
            if len(self.totals) >= self._max_packages:
                return None
            totals = self.totals[app, package] = PackageTotals()
        totals.seen = now
        return totals

    def _forget(self, now: float) -> None:
        remembered = sum(len(baseline.counts) for baseline in self._baselines.values())
        for key, baseline in list(self._baselines.items()):
            is_recent = baseline.seen > now - REMEMBER_SECONDS
            # Who lives is never forgotten: it would be counted from 0 again.
            if baseline.seen == now or (is_recent and remembered <= MAX_BASELINES):
                break
            remembered -= len(self._baselines.pop(key).counts)
        for name in [name for name, totals in self.totals.items() if totals.seen <= now - RETAIN_SECONDS]:
            del self.totals[name]
