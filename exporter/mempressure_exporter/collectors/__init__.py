"""What a scrape measures, in one module a collector. One that fails is told of and costs the others nothing."""

from mempressure_exporter.collectors.collectors import COLLECTORS, Collectors

__all__ = ["COLLECTORS", "Collectors"]
