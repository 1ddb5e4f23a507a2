"""The series of one package of one app: the workers that hold it, its totals, and its printed lines.

Lines are kept from scrape to scrape and rewritten only where a value has changed; labels are sorted and escaped once.
"""

from dataclasses import dataclass, field
from itertools import compress, count
from operator import ne

from mempressure.measure.reading import UNKNOWN
from mempressure.mechanisms import least_mild
from mempressure.state.records import SHARED_SOURCE
from mempressure_exporter.counters import PackageTotals, Values
from mempressure_exporter.exposition import line, with_value
from mempressure_exporter.metrics import FAMILIES, Family

PACKAGE_FAMILIES = tuple(family for family in FAMILIES if family.name.startswith("mempressure_package_"))
"""The families that have a package label, in the order of printing."""

ALL_FAMILIES = range(len(PACKAGE_FAMILIES))
"""The index of each in `PACKAGE_FAMILIES`."""

WorkerKey = tuple[str, str, int, int]
"""App, PID namespace, pid and start time (in ticks) of a worker."""

Holding = tuple[bool, int, str, float, str]
"""One worker's state of a package: loaded, memory in bytes, source of that, last use in Unix seconds, verdict."""

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
    _memory: dict[str, int] = field(default_factory=dict)
    _last_used: float = UNKNOWN
    _verdict: str = ""
    _is_summed: bool = True
    """Whether these four are up to date."""

    def hold(self, worker: WorkerKey, holding: Holding) -> None:
        """Store a worker's state of the package.

        The sums are adjusted where that is possible: summing eight holders at each change took a quarter longer.
        """
        before = self.holders.get(worker)
        self.holders[worker] = holding
        if before is None or holding[2] != before[2] or holding[4] != before[4]:
            self._is_summed = False
            return
        loaded, size, source, used, _ = holding
        if size < 0 or before[1] < 0 or used < before[3] or (source == SHARED_SOURCE and size != before[1]):
            self._is_summed = False
        elif self._is_summed:  # integers: their sum does not depend on the order of changes
            self._loaded += loaded - before[0]
            self._memory[source] += size - before[1]
            self._last_used = max(self._last_used, used)

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
        """Sum over all holders."""
        self._loaded, self._last_used, self._memory = 0, UNKNOWN, {}
        for loaded, size, source, used, _ in self.holders.values():
            self._loaded += loaded
            self._last_used = max(self._last_used, used)
            if size >= 0:
                sizes = (self._memory.get(source, 0), size)
                self._memory[source] = max(sizes) if source == SHARED_SOURCE else sum(sizes)
        # Workers that started before and after a rehearsal may differ; then the least mild verdict is shown.
        self._verdict = least_mild(holding[4] for holding in self.holders.values())
        self._is_summed = True

    def _gauges(self) -> tuple[Values, Values, Values, Values]:
        return (
            tuple(self._memory.items()),
            (("", self._loaded),) if self.holders else (),
            (("", self._last_used),) if self._last_used >= 0 else (),
            ((self._verdict, 1),) if self._verdict else (),
        )

    def _text(self, family: Family, values: Values) -> str:
        named = (self.app, self.name)
        return "".join(line(family, (*named, label) if label else named, value) for label, value in values)
