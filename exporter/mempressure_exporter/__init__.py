"""The exporter: publishes a machine's memory pressure, its applications and their packages to Prometheus."""

__version__ = "0.1.0"
