"""Whether memory grows: a robust slope over a window of samples, and the word for it. Pure: times are passed in."""

from collections import deque
from collections.abc import Sequence
from itertools import combinations

MIN_SAMPLES = 3
"""Two samples always lie on a line: one of them being an outlier could not be told."""

NOTABLE_SHARE = 0.01
NOTABLE_SECONDS = 600.0
"""A trend is notable where it moves `NOTABLE_SHARE` of the total or more within `NOTABLE_SECONDS`.

One percent in ten minutes fills a half-used scope within a working day; slower movement is noise of page caches and
allocators.
"""


def slope(samples: Sequence[tuple[float, float]]) -> float | None:
    """Return the robust slope of (seconds, bytes) samples in bytes per second; None where they are too few.

    It is the Theil-Sen estimator, the median of the slopes between all pairs of samples of different times (P. K. Sen,
    "Estimates of the Regression Coefficient Based on Kendall's Tau", 1968): up to 29 % of the samples may be outliers.
    The samples need no order. Work grows with their square: 30 of them take 50 us.
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


def direction(slope: float | None, *, total_bytes: float) -> str:
    """Return "increasing", "stable" or "decreasing" for a slope in bytes per second within `total_bytes`.

    Below one percent of the total in ten minutes (`NOTABLE_SHARE`, `NOTABLE_SECONDS`) it is stable, and so it is where
    the slope or the total is not known (None, 0).
    """
    if slope is None or total_bytes <= 0:
        return "stable"
    share = slope * NOTABLE_SECONDS / total_bytes
    if abs(share) < NOTABLE_SHARE:
        return "stable"
    return "increasing" if share > 0 else "decreasing"


class Window:
    """The samples that a trend is taken over, and their slope.

    Args:
        seconds: how far back samples count.
        spacing: seconds between two samples that are kept, whatever the rate at which they come; with `seconds` it
            bounds their number, hence the work.
    """

    def __init__(self, *, seconds: float = 300.0, spacing: float = 10.0) -> None:
        self._seconds = seconds
        self._spacing = spacing
        self._samples: deque[tuple[float, float]] = deque()
        self.slope: float | None = None
        """Bytes per second, as `slope` gives them."""

    def add(self, time: float, value: float) -> None:
        """Take a sample; one that comes too soon after the last changes nothing."""
        if self._samples and time < self._samples[-1][0]:  # the clock was set back: what came later cannot be compared
            self._samples.clear()
        if self._samples and time - self._samples[-1][0] < self._spacing:
            return
        self._samples.append((time, value))
        while time - self._samples[0][0] > self._seconds:
            self._samples.popleft()
        self.slope = slope(self._samples)
