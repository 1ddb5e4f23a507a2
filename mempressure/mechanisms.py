"""The registry of mechanisms: the ways to give memory back, mildest first.

A mechanism is one class. To add one, write a module in `mempressure.act.mechanisms` that ends with
`MECHANISM = Name()`, an instance of its subclass of `act.mechanisms.base.Mechanism`, and put its name here: the
plan, the executor, the agents, the rehearsal, the metrics, the API and the command line ask this registry. Its `effect`
goes into docs/concepts.md. Which packages it unloads is said where they are declared: isolated ones in
`mempressure.worker.isolated_states`, others in `mempressure.packages.tracking`.

The names alone stand here, below everything else, so that settings and records can be checked by them.
"""

from collections.abc import Iterable

NAMES = ("trim", "stop", "recycle")


def least_mild(names: Iterable[str]) -> str:
    """Return the least mild of the mechanisms among these names; empty where there is none."""
    return max((name for name in names if name in NAMES), key=NAMES.index, default="")
