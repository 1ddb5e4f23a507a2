"""Packages, summed over the workers that hold them."""

from collections.abc import Iterator

from mempressure_exporter.bound import Bound
from mempressure_exporter.exposition import Lines, line
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
        self._table.update(self._source.workers(), now=self._source.clock())
        # In the order of first sight: which packages are left out where there are too many does not change by itself.
        shown = self._bound.fitting(self._table.packages.values(), size=_series)
        texts = [package.lines or _written(package) for package in shown]
        for name in _FAMILIES:
            if text := "".join([lines[name] for lines in texts if name in lines]):
                yield Lines(name, text)


def _series(package: Package) -> int:
    return len(package.samples)


def _written(package: Package) -> dict[str, str]:
    """Write a package's samples, which stay as they are in most scrapes."""
    lines: dict[str, str] = {}
    for name, labels, value in package.samples:
        lines[name] = lines.get(name, "") + line(_FAMILIES[name], labels, value)
    package.lines = lines
    return lines
