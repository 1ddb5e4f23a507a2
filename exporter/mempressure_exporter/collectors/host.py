"""Collector of the host: memory, swap, level and trend."""

from collections.abc import Iterator

from mempressure.measure.memory import host_memory
from mempressure.measure.trend import SLOW_GAP_SECONDS, Series
from mempressure_exporter.collectors.levels import level_samples
from mempressure_exporter.exposition import Sample
from mempressure_exporter.source import Source


class HostCollector:
    """Collects the memory of the host; keeps it over time, for the trend."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._series = Series()

    def collect(self) -> Iterator[Sample]:
        """Yield the samples of one scrape; raises MeasureError where the host cannot be measured."""
        now, memory = self._source.clock(), host_memory(proc=self._source.proc)
        self._series = self._series.after(now, memory.used, gap=SLOW_GAP_SECONDS)
        yield "mempressure_sample_timestamp_seconds", (), now
        yield "mempressure_host_memory_total_bytes", (), memory.total
        yield "mempressure_host_memory_available_bytes", (), memory.available
        yield "mempressure_host_memory_used_bytes", (), memory.used
        yield "mempressure_host_memory_used_ratio", (), memory.usage
        yield "mempressure_host_swap_total_bytes", (), memory.swap_total
        yield "mempressure_host_swap_used_bytes", (), memory.swap_used
        yield "mempressure_host_swap_free_bytes", (), memory.swap_free
        yield "mempressure_host_swap_used_ratio", (), memory.swap_usage
        if self._series.slope is not None:
            yield "mempressure_host_trend_bytes_per_second", (), self._series.slope
        yield from level_samples("mempressure_host_level", (), memory)
