"""Prometheus exporter of the memory pressure of a machine, its applications and their packages."""
