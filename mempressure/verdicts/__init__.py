"""Verdicts: how a package can be unloaded, as a rehearsal found; stored, and validated before use."""
