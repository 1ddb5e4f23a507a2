"""Collector of packages, summed over the workers that hold them."""

from collections.abc import Iterable, Sequence
from operator import attrgetter

from mempressure_exporter.exposition import Lines
from mempressure_exporter.package_series import ALL_FAMILIES, PACKAGE_FAMILIES, Package
from mempressure_exporter.package_table import PackageTable
from mempressure_exporter.series_limit import SeriesLimit
from mempressure_exporter.source import Source


class PackagesCollector:
    """Collects every package of every app, as lines that are kept where nothing has changed."""

    def __init__(self, source: Source, limit: SeriesLimit) -> None:
        self._source = source
        self._limit = limit
        self._table = PackageTable(started=source.clock(), max_packages=limit.max_series)
        self._texts = [""] * len(PACKAGE_FAMILIES)
        self._limited = False

    def collect(self) -> Sequence[Lines]:
        """Return the series of one scrape; raises UnsafeDirectoryError where others can write to the directory."""
        table = self._table
        stale = table.update(self._source.workers(), now=self._source.clock())
        shown: Iterable[Package] = table.packages.values()
        was_limited, self._limited = self._limited, table.series > self._limit.max_series
        if self._limited:
            # In the order in which they were first seen, so that the same packages are left out at each scrape.
            shown = self._limit.fitting(shown, size=attrgetter("series"))
        if was_limited or self._limited:
            stale = ALL_FAMILIES
        for index in stale:
            self._texts[index] = ""  # also where no package is left
        # One family at a time: lists of all of them fragment the heap, by 1 % of the memory in 2,000 scrapes.
        for index, texts in enumerate(zip(*map(attrgetter("texts"), shown), strict=True)):
            if index in stale:
                self._texts[index] = "".join(texts)
        return [Lines(family.name, text) for family, text in zip(PACKAGE_FAMILIES, self._texts, strict=True) if text]
