"""One package of one app: who holds it now, what was counted of it, and its series as they are printed.

A scrape prints what it printed before but for the packages that changed, and of those it writes the numbers anew:
labels are sorted and escaped once.
"""

from dataclasses import dataclass, field

from mempressure.state import least_mild
from mempressure_exporter.counters import PackageTotals, Values
from mempressure_exporter.exposition import line, renewed
from mempressure_exporter.families import FAMILIES

PACKAGE_FAMILIES = tuple(family for family in FAMILIES if family.name.startswith("mempressure_package_"))
"""The families of the series of a package, in the order of printing."""

WorkerKey = tuple[str, str, int, int]
"""App, PID namespace, pid and start of a worker."""

Holding = tuple[bool, float, str, float, str]
"""Whether a worker has it loaded, its memory in bytes and where that is from, its last use, its verdict."""

_EMPTY: tuple[Values, ...] = ((),) * len(PACKAGE_FAMILIES)


@dataclass(slots=True)
class Package:
    """One package of one app; `update` brings `texts` up to date with the holders and the totals."""

    app: str
    name: str
    totals: PackageTotals = field(default_factory=PackageTotals)
    holders: dict[WorkerKey, Holding] = field(default_factory=dict)
    left: float = 0.0
    """When its last holder was gone, in Unix seconds."""
    values: tuple[Values, ...] = _EMPTY
    """By family, in their order."""
    texts: list[str] = field(default_factory=lambda: [""] * len(PACKAGE_FAMILIES))
    """The same as it is printed, a line a series."""
    series: int = 0
    """How many those are."""

    def update(self) -> None:
        """Make the series anew where what they tell has changed."""
        before, self.values = self.values, (*self._gauges(), *self.totals.values)
        for place, (old, new) in enumerate(zip(before, self.values, strict=True)):
            if new != old:
                self.texts[place] = self._text(place, old, new)
                self.series += len(new) - len(old)

    def _gauges(self) -> tuple[Values, Values, Values, Values]:
        memory: dict[str, float] = {}
        loaded, last_used, verdict = 0, -1.0, ""
        for is_loaded, size, source, used, its_verdict in self.holders.values():
            loaded += is_loaded
            if size >= 0:
                memory[source] = memory.get(source, 0.0) + size
            if used > last_used:  # noqa: PLR1730 -- max() takes four times as long
                last_used = used
            # Workers that started before and after a check differ for a while: then the most cautious is shown.
            if its_verdict != verdict:
                verdict = least_mild((its_verdict, verdict))
        return (
            tuple(memory.items()),
            (("", loaded),) if self.holders else (),
            (("", last_used),) if last_used >= 0 else (),
            ((verdict, 1),) if verdict else (),
        )

    def _text(self, place: int, before: Values, values: Values) -> str:
        if len(values) == len(before) == 1 and values[0][0] == before[0][0]:
            return renewed(self.texts[place], values[0][1])
        named, family = (self.app, self.name), PACKAGE_FAMILIES[place]
        return "".join(line(family, (*named, label) if label else named, value) for label, value in values)
