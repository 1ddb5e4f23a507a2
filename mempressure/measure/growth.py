"""How fast each package's own process grows: a series of its memory, as long as the process lives."""

from collections.abc import Mapping

from mempressure.measure.reading import UNKNOWN
from mempressure.measure.trend import SLOW_GAP_SECONDS, Series


class ProcessGrowth:
    """The memory of every package process over time; one that is started again begins anew."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, int], Series] = {}

    def add(self, now: float, pids: Mapping[str, int | None], memory: Mapping[str, int]) -> None:
        """Take in what each package's process holds, in bytes; `now` is in Unix seconds."""
        known, self._series = self._series, {}
        for package, size in memory.items():
            if (pid := pids.get(package)) is not None:
                key = (package, pid)
                self._series[key] = known.get(key, Series()).after(now, size, gap=SLOW_GAP_SECONDS)

    def rates(self) -> dict[str, float]:
        """Return by how many bytes per second each process grows, 0 for one that shrinks.

        It is the robust slope of its last 30 samples (see `mempressure.measure.trend`); `UNKNOWN` before half a minute.
        """
        slopes = {package: series.slope for (package, _), series in list(self._series.items())}
        return {package: UNKNOWN if slope is None else max(0.0, slope) for package, slope in slopes.items()}
