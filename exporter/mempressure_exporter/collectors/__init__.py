"""The collectors of a scrape, one module each; one that fails is logged and does not affect the others."""

from mempressure_exporter.collectors.collectors import COLLECTORS, Collectors

__all__ = ["COLLECTORS", "Collectors"]
