"""Collector of the host's memory stalls: pressure stall information, and the kernel's notifications."""

from collections.abc import Iterator

from mempressure.measure.pressure import pressure
from mempressure_exporter.exposition import Sample
from mempressure_exporter.source import Source
from mempressure_exporter.wakeups import Wakeups


class PressureCollector:
    """Collects memory stalls of the host; what the kernel does not provide is absent."""

    def __init__(self, source: Source, wakeups: Wakeups | None) -> None:
        self._source = source
        self._wakeups = wakeups

    def collect(self) -> Iterator[Sample]:
        """Yield the samples of one scrape; raises MeasureError where the kernel's file is not PSI."""
        if self._wakeups is not None and not self._wakeups.refused:
            yield "mempressure_host_pressure_wakeups_total", (), self._wakeups.count
        if stalls := pressure(f"{self._source.proc}/pressure/memory"):
            yield "mempressure_host_pressure_waiting_seconds_total", (), stalls.waiting_seconds
            yield "mempressure_host_pressure_stalled_seconds_total", (), stalls.stalled_seconds
