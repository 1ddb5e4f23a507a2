"""Writes samples in Prometheus' text format 0.0.4 or as OpenMetrics 1.0.0, byte for byte as prometheus_client does.

https://prometheus.io/docs/instrumenting/exposition_formats/ and https://prometheus.io/docs/specs/om/open_metrics_spec/
are the formats; for gauges and counters they differ in the lines of comment and the end. What stands before a value
never changes in a series' life, so it is made once and kept.
"""

import math
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from mempressure_exporter.families import Family


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
        self._families = {family.name: _FamilyText(family) for family in families}

    def render(self, samples: Iterable[Sample | Lines], form: Format = Format.TEXT) -> bytes:
        """Return the text of the samples; a family without a sample is left out.

        Raises:
            KeyError: a sample belongs to no family.
            ValueError: a sample has more or fewer labels than its family.
        """
        families = self._families
        lines: dict[str, list[str]] = {name: [] for name in families}
        for sample in samples:
            if isinstance(sample, Lines):
                lines[sample.family].append(sample.text)
                continue
            name, labels, value = sample
            family = families[name]
            last = family.last.get(labels)
            # The same object, as truth values, levels and settings are: equality would take 0.0 for -0.0.
            if last is None or last[0] is not value:
                last = family.write(labels, value)
            lines[name].append(last[1])
        text = []
        for name, family in families.items():
            if found := lines[name]:
                text.append(family.heads[form])
                text += found
                family.forget_if_more_than(2 * len(found) + _SPARE_SERIES)
        if form is Format.OPENMETRICS:
            text.append("# EOF\n")
        return "".join(text).encode()


class _FamilyText:
    """What is the same in every scrape: the family's HELP and TYPE lines, and of its series all but the values."""

    def __init__(self, family: Family) -> None:
        self._family = family
        described = family.help.replace("\\", r"\\").replace("\n", r"\n")
        # OpenMetrics names a counter's family without what its samples end in, and escapes quotes.
        stem, quoted = family.name.removesuffix("_total"), described.replace('"', r"\"")
        name = stem if family.kind == "counter" else family.name
        self.heads = {
            Format.TEXT: f"# HELP {family.name} {described}\n# TYPE {family.name} {family.kind}\n",
            Format.OPENMETRICS: f"# HELP {name} {quoted}\n# TYPE {name} {family.kind}\n",
        }
        self.last: dict[tuple[str, ...], tuple[float, str]] = {}
        """The value and the line that were written last, by labels."""

    def write(self, labels: tuple[str, ...], value: float) -> tuple[float, str]:
        """Write a series' line and keep it."""
        before = self.last.get(labels)
        text = line(self._family, labels, value) if before is None else renewed(before[1], value)
        last = self.last[labels] = (value, text)
        return last

    def forget_if_more_than(self, limit: int) -> None:
        """Drop what is kept where most of it must belong to series that are gone."""
        if len(self.last) > limit:
            self.last.clear()


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
    if -math.inf < value < 1e6:
        return repr(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    whole, point, fraction = text.partition(".")
    if not point or "e" in fraction:  # so large that Python writes an exponent itself
        return text
    digits = (whole + fraction).rstrip("0")
    mantissa = f"{digits[0]}.{digits[1:]}".rstrip(".")
    return f"{mantissa}e+{len(whole) - 1:02d}"


def _escaped(value: str) -> str:
    # A lone surrogate, which JSON can carry, has no UTF-8: one worker's must not cost everybody's scrape.
    readable = value.encode("utf-8", "replace").decode()
    return readable.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
