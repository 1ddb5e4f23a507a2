"""The registry of mechanisms: the ways to give memory back, mildest first.

A mechanism is one class. To add one, write a module in `mempressure.act.mechanisms`, named as the mechanism, that ends
with `MECHANISM = Name()`, an instance of its subclass of `act.mechanisms.base.Mechanism`, and put the name here, where
its place is its mildness: the plan, the executor, the agents, the rehearsal, the metrics, the API and the command line
ask this registry. A package names its mechanism in `PackageState.mechanism`, which `worker/isolated_states.py` (stop),
`residents/unit.py` (release) and `packages/tracking.py` (recycle) set. Tests then ask for its `effect` in
docs/concepts.md, a section in docs/unloading.md, its module in docs/architecture.md, and its traits in
tests/unit/test_mechanisms.py.

The names alone stand here, below everything else, so that settings and records can be checked by them.
"""

from collections.abc import Iterable

NAMES = ("callbacks", "trim", "stop", "release", "recycle")


def least_mild(names: Iterable[str]) -> str:
    """Return the least mild of the mechanisms among these names; empty where there is none."""
    return max((name for name in names if name in NAMES), key=NAMES.index, default="")
