"""Collector of the exporter itself: its version, the node's name, problems and dropped series."""

import sys
from collections.abc import Iterator

from mempressure import __version__
from mempressure.config.configuration import Configuration
from mempressure_exporter.exposition import Sample
from mempressure_exporter.problems import Problems
from mempressure_exporter.series_limit import SeriesLimit


class ExporterCollector:
    """Collects what the exporter counted; runs last, after the other collectors have."""

    def __init__(self, configuration: Configuration, problems: Problems, limit: SeriesLimit) -> None:
        self._node = configuration.node
        self._problems = problems
        self._limit = limit

    def collect(self) -> Iterator[Sample]:
        """Yield the samples of one scrape."""
        yield "mempressure_node_info", (self._node,), 1
        yield "mempressure_exporter_build_info", (__version__, sys.version.partition(" ")[0]), 1
        yield "mempressure_series_dropped_total", (), self._limit.dropped
        for kind, count in self._problems.counts.items():
            yield "mempressure_exporter_problems_total", (kind,), count
