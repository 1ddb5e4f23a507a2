"""How samples are summed up: never by one number alone."""

import math
from collections.abc import Sequence


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Return count, minimum, median, 90th percentile and maximum, rounded to a tenth of a millisecond."""
    ordered = sorted(samples)
    return {
        "count": len(ordered),
        "min": round(ordered[0], 4),
        "p50": round(quantile(ordered, 0.5), 4),
        "p90": round(quantile(ordered, 0.9), 4),
        "max": round(ordered[-1], 4),
    }


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of sorted samples, interpolated between neighbours."""
    position = (len(ordered) - 1) * share
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def tenths(values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Return the first and the last tenth of a series, one value at least."""
    count = max(1, len(values) // 10)
    return values[:count], values[-count:]


def drift(values: Sequence[float]) -> float:
    """Return by which share of the first tenth's median the last tenth's median differs from it."""
    first, last = (quantile(sorted(tenth), 0.5) for tenth in tenths(values))
    return last / first - 1
