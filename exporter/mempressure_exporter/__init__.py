"""The exporter: publishes a machine's memory pressure, its applications and their packages to Prometheus."""
