"""Packages, summed over the workers that hold them."""

from collections.abc import Iterable, Iterator
from operator import attrgetter

from mempressure_exporter.bound import Bound
from mempressure_exporter.exposition import Lines
from mempressure_exporter.package_series import PACKAGE_FAMILIES, Package
from mempressure_exporter.package_table import PackageTable
from mempressure_exporter.source import Source


class PackagesCollector:
    """Every package of every app; counts what its workers counted."""

    def __init__(self, source: Source, bound: Bound) -> None:
        self._source = source
        self._bound = bound
        self._table = PackageTable(started=source.clock(), max_packages=bound.max_series)

    def collect(self) -> Iterator[Lines]:
        """Return the series of one scrape; raises UnsafeDirectoryError where no worker can be believed."""
        table = self._table
        table.update(self._source.workers(), now=self._source.clock())
        shown: Iterable[Package] = table.packages.values()
        if table.series > self._bound.max_series:
            # In the order of first sight: which packages are left out does not change by itself.
            shown = self._bound.fitting(shown, size=attrgetter("series"))
        texts = [package.texts for package in shown]
        for family, parts in zip(PACKAGE_FAMILIES, zip(*texts, strict=True), strict=bool(texts)):
            if text := "".join(parts):
                yield Lines(family.name, text)
