"""Trends of memory: the robust slope of a series of samples, and its direction. Pure: times are passed in."""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

from mempressure.measure.reading import CLOCK_SET_BACK_SECONDS

Direction = Literal["increasing", "stable", "decreasing"]
Sample = tuple[float, float]
"""Unix seconds and bytes."""

MIN_SAMPLES = 3
"""Two samples always lie on a line: an outlier among them could not be recognised."""

NOTABLE_SHARE = 0.01
NOTABLE_SECONDS = 600.0
"""A trend is notable where it moves `NOTABLE_SHARE` of the total or more within `NOTABLE_SECONDS`.

One percent in ten minutes fills a half-used scope within a working day; slower movement is noise of page caches and
allocators.
"""

SERIES_LENGTH = 30
"""Most samples in a series: Theil-Sen compares every pair, so this bounds the cost of a trend."""
SERIES_SECONDS = 900.0
"""Greatest age of a sample in a series."""
TREND_SECONDS = 30.0
"""Time that a series must span to have a trend: shorter growth is a request, or an application starting."""
SLOW_GAP_SECONDS = 10.0
"""The usual gap between two samples, so that a series spans minutes however often memory is measured."""


def slope(samples: Sequence[Sample]) -> float | None:
    """Return the robust slope of (seconds, bytes) samples in bytes per second; None where there are too few.

    It is the Theil-Sen estimator, the median of the slopes between all pairs of samples of different times (P. K. Sen,
    "Estimates of the Regression Coefficient Based on Kendall's Tau", 1968): up to 29 % of the samples may be outliers.
    The samples need no order. The time grows with the square of their number: 30 of them take 50 us.
    """
    if len(samples) < MIN_SAMPLES:
        return None
    slopes = sorted(
        (value - other_value) / (time - other_time)
        for (time, value), (other_time, other_value) in combinations(samples, 2)
        if time != other_time
    )
    if not slopes:
        return None
    middle = len(slopes) // 2
    return slopes[middle] if len(slopes) % 2 else (slopes[middle - 1] + slopes[middle]) / 2


def direction(slope: float | None, *, total_bytes: float) -> Direction:
    """Return "increasing", "stable" or "decreasing" for a slope in bytes per second within `total_bytes`.

    It is "stable" below one percent of the total in ten minutes (`NOTABLE_SHARE`, `NOTABLE_SECONDS`), and where the
    slope or the total is not known (None, 0).
    """
    if slope is None or total_bytes <= 0:
        return "stable"
    share = slope * NOTABLE_SECONDS / total_bytes
    if abs(share) < NOTABLE_SHARE:
        return "stable"
    return "increasing" if share > 0 else "decreasing"


class Series:
    """Samples of bytes over time, immutable so that reading needs no lock: `after` returns the next series."""

    __slots__ = ("_slope", "samples")

    def __init__(self, samples: tuple[Sample, ...] = ()) -> None:
        self.samples = samples
        self._slope: float | None = None

    def after(self, now: float, value: float, *, gap: float) -> "Series":
        """Return the series with a sample more, or itself where the last sample is less than `gap` seconds old."""
        if not self.samples:
            return Series(((now, value),))
        since = now - self.samples[-1][0]
        if since <= -CLOCK_SET_BACK_SECONDS:
            return Series(((now, value),))
        if since < gap:  # below 0: another thread measured later and added its sample first
            return self
        kept = [sample for sample in self.samples[1 - SERIES_LENGTH :] if now - sample[0] <= SERIES_SECONDS]
        return Series((*kept, (now, value)))

    @property
    def slope(self) -> float | None:
        """Return the slope in bytes per second, computed once; None where there are too few samples."""
        if self._slope is None and self.samples and self.samples[-1][0] - self.samples[0][0] >= TREND_SECONDS:
            self._slope = slope(self.samples)
        return self._slope
