"""The number that means "not known", and the tolerance by which a clock that was set back is recognised."""

UNKNOWN = -1.0
"""Stands for a number that is not known: a package never used, a cgroup without a limit."""

CLOCK_SET_BACK_SECONDS = 10.0
"""A time that lies further in the future than this was recorded before the clock was set back."""
