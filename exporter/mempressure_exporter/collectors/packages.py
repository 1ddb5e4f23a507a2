"""Packages, summed over the workers that hold them."""

from collections.abc import Iterable, Sequence
from operator import attrgetter

from mempressure_exporter.bound import Bound
from mempressure_exporter.exposition import Lines
from mempressure_exporter.package_series import ALL_FAMILIES, PACKAGE_FAMILIES, Package
from mempressure_exporter.package_table import PackageTable
from mempressure_exporter.source import Source


class PackagesCollector:
    """Every package of every app; counts what its workers counted."""

    def __init__(self, source: Source, bound: Bound) -> None:
        self._source = source
        self._bound = bound
        self._table = PackageTable(started=source.clock(), max_packages=bound.max_series)
        self._texts = [""] * len(PACKAGE_FAMILIES)
        self._bounded = False

    def collect(self) -> Sequence[Lines]:
        """Return the series of one scrape; raises UnsafeDirectoryError where no worker can be believed."""
        table = self._table
        stale = table.update(self._source.workers(), now=self._source.clock())
        shown: Iterable[Package] = table.packages.values()
        bounded, self._bounded = self._bounded, table.series > self._bound.max_series
        if self._bounded:
            # In the order of first sight: which packages are left out does not change by itself.
            shown = self._bound.fitting(shown, size=attrgetter("series"))
        if bounded or self._bounded:
            stale = ALL_FAMILIES
        for place in stale:
            self._texts[place] = ""  # also where no package is left to be gone through
        # One family after another: all of them in hand leave holes in memory, 1 % of it in 2,000 scrapes.
        for place, texts in enumerate(zip(*map(attrgetter("texts"), shown), strict=True)):
            if place in stale:
                self._texts[place] = "".join(texts)
        return [Lines(family.name, text) for family, text in zip(PACKAGE_FAMILIES, self._texts, strict=True) if text]
