"""Verdicts: what a rehearsal found out about unloading a package, stored, and checked before it is believed."""
