"""One package of one app: who holds it now, what was counted of it, and its series as they are printed.

A scrape prints what it printed before but for the packages that changed, and of those it writes the numbers anew:
labels are sorted and escaped once.
"""

from dataclasses import dataclass, field
from itertools import compress, count
from operator import ne

from mempressure.measure.reading import UNKNOWN
from mempressure.state.records import least_mild
from mempressure_exporter.counters import PackageTotals, Values
from mempressure_exporter.exposition import line, renewed
from mempressure_exporter.metrics import FAMILIES, Family

PACKAGE_FAMILIES = tuple(family for family in FAMILIES if family.name.startswith("mempressure_package_"))
"""The families of the series of a package, in the order of printing."""

ALL_FAMILIES = range(len(PACKAGE_FAMILIES))
"""Their places."""

WorkerKey = tuple[str, str, int, int]
"""App, PID namespace, pid and start of a worker."""

Holding = tuple[bool, int, str, float, str]
"""Whether a worker has it loaded, its memory in bytes and where that is from, its last use, its verdict."""

_EMPTY: tuple[Values, ...] = ((),) * len(PACKAGE_FAMILIES)


@dataclass(slots=True)
class Package:
    """One package of one app; `update` brings `texts` up to date with the holders and the totals."""

    app: str
    name: str
    totals: PackageTotals = field(default_factory=PackageTotals)
    holders: dict[WorkerKey, Holding] = field(default_factory=dict)
    """To be changed by `hold` and `let_go` only."""
    left: float = 0.0
    """When its last holder was gone, in Unix seconds."""
    values: tuple[Values, ...] = _EMPTY
    """By family, in their order."""
    texts: list[str] = field(default_factory=lambda: [""] * len(PACKAGE_FAMILIES))
    """The same as it is printed, a line a series."""
    series: int = 0
    """How many those are."""

    _loaded: int = 0
    _memory: dict[str, int] = field(default_factory=dict)
    _last_used: float = UNKNOWN
    _verdict: str = ""
    _is_counted: bool = True
    """Whether those four are up to date."""

    def hold(self, worker: WorkerKey, holding: Holding) -> None:
        """Note what a worker says of it.

        The sums go along: to go through eight holders for each change took a quarter more.
        """
        before = self.holders.get(worker)
        self.holders[worker] = holding
        if before is None or holding[2] != before[2] or holding[4] != before[4]:
            self._is_counted = False
            return
        loaded, size, source, used, _ = holding
        if size < 0 or before[1] < 0 or used < before[3]:
            self._is_counted = False
        elif self._is_counted:  # in whole numbers, which add up to the same whatever the order
            self._loaded += loaded - before[0]
            self._memory[source] += size - before[1]
            self._last_used = max(self._last_used, used)

    def let_go(self, worker: WorkerKey, *, now: float) -> bool:
        """Forget a worker; return whether it was a holder."""
        if self.holders.pop(worker, None) is None:
            return False
        self._is_counted = False
        self.left = now
        return True

    def update(self) -> list[int]:
        """Make the series anew where what they tell has changed; return the places of those families."""
        if not self._is_counted:
            self._count()
        before, self.values = self.values, (*self._gauges(), *self.totals.values)
        changed = list(compress(count(), map(ne, before, self.values)))
        for place in changed:
            old, new = before[place], self.values[place]
            if len(old) == len(new) == 1 and old[0][0] == new[0][0]:
                self.texts[place] = renewed(self.texts[place], new[0][1])
            else:
                self.texts[place] = self._text(PACKAGE_FAMILIES[place], new)
                self.series += len(new) - len(old)
        return changed

    def _count(self) -> None:
        """Go through the holders: workers come and go, and what they say may be anything."""
        self._loaded, self._last_used, self._memory = 0, UNKNOWN, {}
        for loaded, size, source, used, _ in self.holders.values():
            self._loaded += loaded
            self._last_used = max(self._last_used, used)
            if size >= 0:
                self._memory[source] = self._memory.get(source, 0) + size
        # Workers that started before and after a check differ for a while: then the most cautious is shown.
        self._verdict = least_mild(holding[4] for holding in self.holders.values())
        self._is_counted = True

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
