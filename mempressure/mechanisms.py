"""The registry of mechanisms: the ways to give memory back, mildest first.

A mechanism is one class, in the module of `mempressure.act.mechanisms` that has its name. To add one, write that module
and its name here: the plan, the executor, the agents, the rehearsal, the metrics, the API and the command line ask this
registry. The names alone stand here, below everything else, so that settings and records can be checked by them.
"""

from collections.abc import Iterable

NAMES = ("trim", "stop", "recycle")


def least_mild(names: Iterable[str]) -> str:
    """Return the least mild of the mechanisms among these names; empty where there is none."""
    return max((name for name in names if name in NAMES), key=NAMES.index, default="")
