"""Writes samples in Prometheus' text format 0.0.4 or as OpenMetrics 1.0.0, byte for byte as prometheus_client does.

https://prometheus.io/docs/instrumenting/exposition_formats/ and https://prometheus.io/docs/specs/om/open_metrics_spec/
are the formats; for gauges and counters they differ in the lines of comment and the end. What stands before a value
never changes in a series' life, so it is made once and kept.
"""

from collections.abc import Iterable
from enum import Enum
from math import isfinite, isnan
from typing import NamedTuple

from mempressure_exporter.metrics import Family


class Format(Enum):
    """A format of exposition, by its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


Sample = tuple[str, tuple[str, ...], float]
"""Family name, label values in the family's order, value."""


class Lines(NamedTuple):
    """Series of one family that are written already; without the lines of comment."""

    family: str
    text: str


_SPARE_SERIES = 1000


class Exposition:
    """The text of one scrape after another; to be used by one thread at a time.

    Args:
        families: every family that samples may belong to, in the order of printing.
    """

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = {family.name: family for family in families}
        self._heads = {form: {name: _head(each, form) for name, each in self._families.items()} for form in Format}
        self._last: dict[tuple[str, tuple[str, ...]], tuple[float, str]] = {}
        """Of each series, by its family's name and its labels, the value and the line that were written last."""

    def render(self, samples: Iterable[Sample | Lines], form: Format = Format.TEXT) -> bytes:
        """Return the text of the samples; a family without a sample is left out.

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
            # The same object, as truth values, levels and settings are: equality would take 0.0 for -0.0.
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
        if len(self._last) > 2 * len(text) + _SPARE_SERIES:  # most of it belongs to series that are gone
            self._last.clear()
        return "".join(text).encode()

    def _write(
        self, name: str, labels: tuple[str, ...], value: float, before: tuple[float, str] | None
    ) -> tuple[float, str]:
        """Write a series' line and keep it."""
        text = line(self._families[name], labels, value) if before is None else renewed(before[1], value)
        last = self._last[name, labels] = (value, text)
        return last


def _head(family: Family, form: Format) -> str:
    """Return the HELP and TYPE lines of a family."""
    described = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if form is Format.TEXT:
        return f"# HELP {family.name} {described}\n# TYPE {family.name} {family.kind}\n"
    # OpenMetrics names a counter's family without what its samples end in, and escapes quotes.
    name, quoted = family.name, described.replace('"', r"\"")
    if family.kind == "counter":
        name = name.removesuffix("_total")
    return f"# HELP {name} {quoted}\n# TYPE {name} {family.kind}\n"


def line(family: Family, labels: tuple[str, ...], value: float) -> str:
    """Return a series' line: its name with its labels, which prometheus_client sorts by name, and its value.

    Raises:
        ValueError: there are more or fewer labels than the family has.
    """
    pairs = sorted(zip(family.labels, labels, strict=True))
    inside = ",".join(f'{name}="{_escaped(label)}"' for name, label in pairs)
    start = f"{family.name}{{{inside}}}" if inside else family.name
    return f"{start} {number(value)}\n"


def renewed(line: str, value: float) -> str:
    """Return a line with another value: to sort and escape the labels again takes three times as long."""
    return f"{line.rpartition(' ')[0]} {number(value)}\n"


def number(value: float) -> str:
    """Return a value as Go writes it: +Inf, NaN, and an exponent from 1e+06 on."""
    value = float(value)
    if 1e6 <= value < 1e16:
        whole, _, fraction = repr(value).partition(".")
        mantissa = f"{whole[0]}.{whole[1:]}{fraction}".rstrip("0.")
        return f"{mantissa}e+{len(whole) - 1:02d}"
    if isfinite(value):
        return repr(value)
    return "NaN" if isnan(value) else "+Inf" if value > 0 else "-Inf"


def _escaped(value: str) -> str:
    # A lone surrogate, which JSON can carry, has no UTF-8: one worker's must not cost everybody's scrape.
    readable = value.encode("utf-8", "replace").decode()
    return readable.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
