"""Growth of package processes: the slope of each one's memory over time."""

from collections.abc import Mapping

from mempressure.measure.reading import UNKNOWN
from mempressure.measure.trend import SLOW_GAP_SECONDS, Series


class ProcessGrowth:
    """The memory of each package process over time; a new process of a package starts a new series."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, int], Series] = {}

    def add(self, now: float, pids: Mapping[str, int | None], memory: Mapping[str, int]) -> None:
        """Add a sample for each process that runs.

        Args:
            now: the time in Unix seconds.
            pids: the process id by package, None where none runs.
            memory: the private bytes of the process by package.
        """
        known, self._series = self._series, {}
        for package, size in memory.items():
            if (pid := pids.get(package)) is not None:
                key = (package, pid)
                self._series[key] = known.get(key, Series()).after(now, size, gap=SLOW_GAP_SECONDS)

    def rates(self) -> dict[str, float]:
        """Return the growth of each process by package, in bytes per second; 0 for one that shrinks.

        It is the robust slope of the last 30 samples (see `mempressure.measure.trend`); `UNKNOWN` in the first 30 s.
        """
        slopes = {package: series.slope for (package, _), series in list(self._series.items())}
        return {package: UNKNOWN if slope is None else max(0.0, slope) for package, slope in slopes.items()}
