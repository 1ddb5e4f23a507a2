"""Growth of package processes: the slope of each one's memory over time."""

from mempressure.measure.process import MeasuredProcesses
from mempressure.measure.reading import UNKNOWN
from mempressure.measure.trend import SLOW_GAP_SECONDS, Series


class ProcessGrowth:
    """The memory of each package process over time, a series for each process."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, int], Series] = {}

    def add(self, now: float, memory: MeasuredProcesses) -> None:
        """Add a sample of the private memory of each process that runs; `now` is the time in Unix seconds."""
        known, self._series = self._series, {}
        for package, processes in memory.items():
            for pid, process in processes.items():
                key = (package, pid)
                self._series[key] = known.get(key, Series()).after(now, process.private, gap=SLOW_GAP_SECONDS)

    def rates(self) -> dict[str, float]:
        """Return by how many bytes per second the processes of each package grow; those that shrink count nothing.

        It is the robust slope of the last 30 samples (see `mempressure.measure.trend`); `UNKNOWN` while a process has
        run for less than 30 s.
        """
        rates: dict[str, float] = {}
        for (package, _), series in list(self._series.items()):
            rate, others = series.slope, rates.get(package, 0.0)
            rates[package] = UNKNOWN if rate is None or others == UNKNOWN else others + max(0.0, rate)
        return rates
