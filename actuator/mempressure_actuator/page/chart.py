"""The chart of a scope's usage in the last hour, as SVG paths and positions. Pure; times are passed in.

The chart is stretched to the available width. What must not be stretched (texts, dashes) is placed in percent; only the
line and its area are in coordinates: seconds from the left edge, and 0 to `HEIGHT`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds
from mempressure_actuator.store.usage_history import KEPT_SECONDS, SAMPLE_SECONDS, UsageSample

WIDTH = KEPT_SECONDS
HEIGHT = 1000.0
GAP_SECONDS = 3 * SAMPLE_SECONDS
"""Samples that are further apart are not joined by the line."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A horizontal line (a threshold) or a vertical one (a mark)."""

    name: str
    place: str
    """Distance from the top, or from the left, in percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The usage of a scope in the hour before now."""

    line: str
    area: str
    """SVG paths; empty if there is no sample."""
    thresholds: tuple[Rule, ...]
    marks: tuple[Rule, ...]
    """When memory was given back."""
    now: str
    """Where the line ends, from the top, in percent; empty if there is no line."""
    top: float
    """The ratio at the upper edge: 1, or more if an app is above its budget."""
    lowest: float
    highest: float
    """Ratios."""
    seconds: float
    """How far the samples reach back."""


def draw(samples: Sequence[UsageSample], *, thresholds: Thresholds, marks: Iterable[float], now: float) -> Chart:
    """Return the chart of the hour before `now`.

    Args:
        samples: oldest first, none older than the hour and an interval.
        thresholds: drawn at their enter ratios.
        marks: the Unix times at which memory was given back.
        now: Unix seconds.
    """
    left = now - KEPT_SECONDS
    usages = [usage for _, usage in samples] or [0.0]
    top = max(1.0, *usages)
    line, area = [], []
    for part in _joined(samples):
        # A sample applies to its interval: the last one is drawn to the end of it, or to now.
        end = min(part[-1][0] + SAMPLE_SECONDS, now)
        points = [(max(0.0, time - left), usage) for time, usage in (*part, (end, part[-1][1]))]
        path = " ".join(f"{x:.0f},{HEIGHT * (1 - usage / top):.0f}" for x, usage in points)
        line.append(f"M{path}")
        area.append(f"M{points[0][0]:.0f},{HEIGHT:.0f} L{path} {points[-1][0]:.0f},{HEIGHT:.0f}Z")
    return Chart(
        line=" ".join(line),
        area=" ".join(area),
        thresholds=tuple(Rule(name, _percent(1 - thresholds.enter(name) / top)) for name in THRESHOLD_NAMES),
        marks=tuple(Rule("", _percent((when - left) / KEPT_SECONDS)) for when in marks if left <= when <= now),
        now=_percent(1 - samples[-1][1] / top) if samples else "",
        top=top,
        lowest=min(usages),
        highest=max(usages),
        seconds=min(KEPT_SECONDS, max(0.0, now - samples[0][0])) if samples else 0.0,
    )


def _joined(samples: Sequence[UsageSample]) -> list[list[UsageSample]]:
    """Return the samples in stretches without a gap."""
    parts: list[list[UsageSample]] = []
    for sample in samples:
        if parts and sample[0] - parts[-1][-1][0] <= GAP_SECONDS:
            parts[-1].append(sample)
        else:
            parts.append([sample])
    return parts


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.2f}%"
