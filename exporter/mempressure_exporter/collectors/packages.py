"""Packages, summed over the workers that hold them."""

import math
from collections.abc import Iterable, Iterator

from mempressure_exporter.bound import Bound
from mempressure_exporter.exposition import Lines, line_start, number
from mempressure_exporter.families import FAMILIES
from mempressure_exporter.package_table import Package, PackageTable
from mempressure_exporter.source import Source

_FAMILIES = {family.name: family for family in FAMILIES if family.name.startswith("mempressure_package_")}


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
            shown = self._bound.fitting(shown, size=_series)
        texts = [package.lines or _written(package) for package in shown]
        for name, lines in zip(_FAMILIES, zip(*texts, strict=True), strict=bool(texts)):
            if text := "".join(lines):
                yield Lines(name, text)


def _series(package: Package) -> int:
    return len(package.samples)


def _written(package: Package) -> tuple[str, ...]:
    """Write what changed of a package's samples: most stay as they are from scrape to scrape."""
    lines = dict.fromkeys(_FAMILIES, "")
    before, package.written = package.written, {}
    for name, labels, value in package.samples:
        series = (name, labels)
        start, old, line = before.get(series) or (line_start(_FAMILIES[name], labels), math.nan, "")
        if value != old:
            line = f"{start} {number(value)}\n"
        package.written[series] = (start, value, line)
        lines[name] += line
    package.lines = tuple(lines.values())
    return package.lines
