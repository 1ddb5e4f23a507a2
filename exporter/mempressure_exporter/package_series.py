"""The series of one package of one app: the workers that hold it, its totals, and its printed lines.

Lines are kept from scrape to scrape and rewritten only where a value has changed; labels are sorted and escaped once.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import compress, count
from operator import ne
from typing import NamedTuple

from mempressure.measure.reading import UNKNOWN
from mempressure.mechanisms import least_mild
from mempressure.state.records import PROCESS_SOURCE, SHARED_SOURCE
from mempressure_exporter.counters import PackageTotals, Values
from mempressure_exporter.exposition import line, with_value
from mempressure_exporter.metrics import FAMILIES, Family

PACKAGE_FAMILIES = tuple(family for family in FAMILIES if family.name.startswith("mempressure_package_"))
"""The families that have a package label, in the order of printing."""

ALL_FAMILIES = range(len(PACKAGE_FAMILIES))
"""The index of each in `PACKAGE_FAMILIES`."""

WorkerKey = tuple[str, str, int, int]
"""App, PID namespace, pid and start time (in ticks) of a worker."""


class Holding(NamedTuple):
    """One worker's state of a package: whole bytes, times in Unix seconds."""

    loaded: int
    """For an isolated package the number of its processes."""
    size: int
    source: str
    last_used: float
    verdict: str
    waiting: int = 0
    results: int = 0
    processes: str = ""
    """Which package processes it is about: of workers that share them the newest reading counts."""
    sampled: float = 0.0
    """When the worker's state was published that brought this."""


_EMPTY: tuple[Values, ...] = ((),) * len(PACKAGE_FAMILIES)


@dataclass(slots=True)
class Package:
    """One package of one app; after changes of holders or totals, `update` brings its series up to date."""

    app: str
    name: str
    totals: PackageTotals = field(default_factory=PackageTotals)
    holders: dict[WorkerKey, Holding] = field(default_factory=dict)
    """Changed by `hold` and `remove` only, which keep the sums below up to date."""
    left: float = 0.0
    """When the last holder left, in Unix seconds."""
    values: tuple[Values, ...] = _EMPTY
    """Series by family, in the order of `PACKAGE_FAMILIES`."""
    texts: list[str] = field(default_factory=lambda: [""] * len(PACKAGE_FAMILIES))
    """The same as printed: the lines of each family."""
    series: int = 0
    """How many series there are."""

    _loaded: int = 0
    _processes: int | None = None
    """None where no worker has the package in processes of its own."""
    _waiting: int = 0
    _results: int = 0
    _memory: dict[str, int] = field(default_factory=dict)
    _last_used: float = UNKNOWN
    _verdict: str = ""
    _is_summed: bool = True
    """Whether these seven are up to date."""

    def hold(self, worker: WorkerKey, now: Holding) -> None:
        """Store a worker's state of the package.

        The sums are adjusted where that is possible: summing eight holders at each change took a quarter longer. Where
        workers share processes it is not, and all of them change at once: they are summed once.
        """
        before = self.holders.get(worker)
        self.holders[worker] = now
        if before is None or not _is_adjustable(before, now):
            self._is_summed = False
        elif self._is_summed:  # integers: their sum does not depend on the order of changes
            self._loaded += (now.loaded > 0) - (before.loaded > 0)
            if self._processes is not None and now.source == PROCESS_SOURCE:
                self._processes += now.loaded - before.loaded
            self._waiting += now.waiting - before.waiting
            self._results += now.results - before.results
            self._memory[now.source] += now.size - before.size
            self._last_used = max(self._last_used, now.last_used)

    def remove(self, worker: WorkerKey, *, now: float) -> bool:
        """Remove a worker; return whether it was a holder."""
        if self.holders.pop(worker, None) is None:
            return False
        self._is_summed = False
        self.left = now
        return True

    def update(self) -> list[int]:
        """Rewrite the series whose values have changed; return their families' indexes in `PACKAGE_FAMILIES`."""
        if not self._is_summed:
            self._sum()
        before, self.values = self.values, (*self._gauges(), *self.totals.values)
        changed = list(compress(count(), map(ne, before, self.values)))
        for index in changed:
            old, new = before[index], self.values[index]
            if len(old) == len(new) == 1 and old[0][0] == new[0][0]:
                self.texts[index] = with_value(self.texts[index], new[0][1])
            else:
                self.texts[index] = self._text(PACKAGE_FAMILIES[index], new)
                self.series += len(new) - len(old)
        return changed

    def _sum(self) -> None:
        """Sum over all holders; processes that several share count as the newest reading of them has it."""
        holders = self.holders.values()
        self._loaded = sum(holding.loaded > 0 for holding in holders)
        self._waiting = sum(holding.waiting for holding in holders)
        self._results = sum(holding.results for holding in holders)
        self._last_used = max((holding.last_used for holding in holders), default=UNKNOWN)
        counted = self._counted()
        numbers = [holding.loaded for holding in counted if holding.source == PROCESS_SOURCE]
        self._processes = sum(numbers) if numbers else None
        self._memory = {}
        for holding in counted:
            if holding.size >= 0:
                sizes = (self._memory.get(holding.source, 0), holding.size)
                self._memory[holding.source] = max(sizes) if holding.source == SHARED_SOURCE else sum(sizes)
        # Workers that started before and after a rehearsal may differ; then the least mild verdict is shown.
        self._verdict = least_mild(holding.verdict for holding in holders)
        self._is_summed = True

    def _counted(self) -> Collection[Holding]:
        """Return the states of workers that share nothing, and of each set of shared processes the best."""
        best: dict[object, Holding] = {}
        for worker, holding in self.holders.items():
            key = holding.processes or worker
            known = best.get(key)
            if known is None or _goodness(holding) > _goodness(known):
                best[key] = holding
        return best.values()

    def _gauges(self) -> tuple[Values, ...]:
        return (
            tuple(self._memory.items()),
            (("", self._loaded),) if self.holders else (),
            (("", self._processes),) if self._processes is not None else (),
            (("", self._waiting),) if self._processes is not None else (),
            (("", self._results),) if self._results > 0 else (),
            (("", self._last_used),) if self._last_used >= 0 else (),
            ((self._verdict, 1),) if self._verdict else (),
        )

    def _text(self, family: Family, values: Values) -> str:
        named = (self.app, self.name)
        return "".join(line(family, (*named, label) if label else named, value) for label, value in values)


def _is_adjustable(before: Holding, now: Holding) -> bool:
    """Return whether the sums of all holders can be told from what has changed in one."""
    if now.processes or before.processes or now.source != before.source or now.verdict != before.verdict:
        return False
    if now.size < 0 or before.size < 0 or now.last_used < before.last_used:
        return False
    return now.source != SHARED_SOURCE or now.size == before.size


def _goodness(holding: Holding) -> tuple[bool, float, int, int, str]:
    """Return how good a reading of shared processes is, as in `mempressure.state.package_processes`."""
    measured = holding.size > 0 or holding.loaded <= 0
    return (measured, holding.sampled, holding.size, holding.loaded, holding.source)
