"""The writer of samples as Prometheus text format 0.0.4 or OpenMetrics 1.0.0, byte for byte as prometheus_client.

The formats are specified at https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://prometheus.io/docs/specs/om/open_metrics_spec/; for gauges and counters they differ in the comment lines and the
end. The text before a series' value never changes, so it is written once and cached.
"""

from collections.abc import Iterable
from enum import Enum
from math import isfinite, isnan
from typing import NamedTuple

from mempressure_exporter.metrics import Family


class Format(Enum):
    """An exposition format; the value is its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


Sample = tuple[str, tuple[str, ...], float]
"""Family name, label values in the family's order, value."""


class Lines(NamedTuple):
    """Series of one family, already written as lines; without the comment lines."""

    family: str
    text: str


_SPARE_SERIES = 1000
"""How many lines are cached beyond twice those printed, before the cache is cleared."""


class Exposition:
    """Writes scrape after scrape, with a cache of lines; to be used by one thread at a time.

    Args:
        families: every family that samples may belong to, in the order of printing.
    """

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = {family.name: family for family in families}
        self._heads = {form: {name: _head(each, form) for name, each in self._families.items()} for form in Format}
        self._last: dict[tuple[str, tuple[str, ...]], tuple[float, str]] = {}
        """By family name and label values: the value and the line that were written last."""

    def render(self, samples: Iterable[Sample | Lines], form: Format = Format.TEXT) -> bytes:
        """Return the samples as encoded text; a family without a sample is left out.

        Raises:
            KeyError: a sample belongs to no family.
            ValueError: a sample has more or fewer labels than its family.
        """
        lines: dict[str, list[str]] = {name: [] for name in self._families}
        for sample in samples:
            if isinstance(sample, Lines):
                lines[sample.family].append(sample.text)
                continue
            name, labels, value = sample
            last = self._last.get((name, labels))
            # By identity: booleans and settings repeat as the same object, and equality would take 0.0 for -0.0.
            if last is None or last[0] is not value:
                last = self._write(name, labels, value, last)
            lines[name].append(last[1])
        text = []
        for name, head in self._heads[form].items():
            if found := lines[name]:
                text.append(head)
                text += found
        if form is Format.OPENMETRICS:
            text.append("# EOF\n")
        if len(self._last) > 2 * len(text) + _SPARE_SERIES:  # most cached lines are of series that are gone
            self._last.clear()
        return "".join(text).encode()

    def _write(
        self, name: str, labels: tuple[str, ...], value: float, before: tuple[float, str] | None
    ) -> tuple[float, str]:
        """Write a series' line and cache it."""
        text = line(self._families[name], labels, value) if before is None else with_value(before[1], value)
        last = self._last[name, labels] = (value, text)
        return last


def _head(family: Family, form: Format) -> str:
    """Return the HELP and TYPE lines of a family."""
    described = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if form is Format.TEXT:
        return f"# HELP {family.name} {described}\n# TYPE {family.name} {family.kind}\n"
    # OpenMetrics names a counter's family without the suffix of its samples, and escapes quotes.
    name, quoted = family.name, described.replace('"', r"\"")
    if family.kind == "counter":
        name = name.removesuffix("_total")
    return f"# HELP {name} {quoted}\n# TYPE {name} {family.kind}\n"


def line(family: Family, labels: tuple[str, ...], value: float) -> str:
    """Return a series' line: family name, labels sorted by name as prometheus_client does, and value.

    Raises:
        ValueError: there are more or fewer labels than the family has.
    """
    pairs = sorted(zip(family.labels, labels, strict=True))
    inside = ",".join(f'{name}="{_escaped(label)}"' for name, label in pairs)
    start = f"{family.name}{{{inside}}}" if inside else family.name
    return f"{start} {number(value)}\n"


def with_value(line: str, value: float) -> str:
    """Return a line with another value: sorting and escaping the labels again would take three times as long."""
    return f"{line.rpartition(' ')[0]} {number(value)}\n"


def number(value: float) -> str:
    """Return a value as Go formats it: +Inf, NaN, and an exponent from 1e+06 on."""
    value = float(value)
    if 1e6 <= value < 1e16:
        whole, _, fraction = repr(value).partition(".")
        mantissa = f"{whole[0]}.{whole[1:]}{fraction}".rstrip("0.")
        return f"{mantissa}e+{len(whole) - 1:02d}"
    if isfinite(value):
        return repr(value)
    return "NaN" if isnan(value) else "+Inf" if value > 0 else "-Inf"


def _escaped(value: str) -> str:
    # A lone surrogate, which JSON can carry, has no UTF-8 encoding; it must not fail the whole scrape.
    readable = value.encode("utf-8", "replace").decode()
    return readable.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
