"""Packages, summed over the workers that hold them."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from mempressure_exporter.bound import Bound
from mempressure_exporter.exposition import Lines, Sample, line_start, number
from mempressure_exporter.families import FAMILIES
from mempressure_exporter.package_table import Line, Package, PackageTable
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
        texts = [package.text or _written(package) for package in shown]
        for name, parts in zip(_FAMILIES, zip(*texts, strict=True), strict=bool(texts)):
            if text := "".join(parts):
                yield Lines(name, text)


def _series(package: Package) -> int:
    return len(package.samples)


def _written(package: Package) -> tuple[str, ...]:
    """Write what changed of a package's samples: most stay as they are from scrape to scrape."""
    text = dict.fromkeys(_FAMILIES, "")
    before, lines = package.lines[: len(package.samples)], []
    for sample, known in zip_longest(package.samples, before):
        written = known if known is not None and known[0] == sample else _line(sample, known)
        lines.append(written)
        text[sample[0]] += written[2]
    package.lines, package.text = lines, tuple(text.values())
    return package.text


def _line(sample: Sample, known: Line | None) -> Line:
    name, labels, value = sample
    is_same_series = known is not None and known[0][:2] == sample[:2]
    start = known[1] if known is not None and is_same_series else line_start(_FAMILIES[name], labels)
    return sample, start, f"{start} {number(value)}\n"
