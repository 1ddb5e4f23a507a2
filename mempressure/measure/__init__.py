"""Readings of the kernel: memory, processes, cgroups and their trends. Nothing is decided here."""
