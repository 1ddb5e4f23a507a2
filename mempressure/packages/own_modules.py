"""The modules that this process has imported itself: those in `sys.modules`, less those that it had when it was forked.

A forked process shares the pages of its parent until one of the two writes to them, and a mere look at an object writes
to its reference count. A walk over all of `sys.modules` is therefore never done in a process that was forked from one
that had loaded much: with pandas and sympy it made 27 MiB of each worker private.
"""

import sys
from itertools import islice
from types import ModuleType

from mempressure.measure.process import forked_from_loaded_parent


class OwnModules:
    """The modules that this process has imported itself, the latest first.

    What this object finds there when it is made counts as inherited where the process shares much memory with others,
    which it then has from its parent; else as imported here.
    """

    def __init__(self) -> None:
        self._inherited = len(sys.modules) if forked_from_loaded_parent() else 0
        """How many of the first entries of `sys.modules`, a dict and so in the order of import, are the parent's."""

    def after_fork(self) -> None:
        """Begin anew in a forked child: all modules that there are now are its parent's."""
        self._inherited = len(sys.modules)

    @property
    def has_parents(self) -> bool:
        """Return whether some modules are the parent's."""
        return self._inherited > 0

    def items(self) -> list[tuple[str, ModuleType]]:
        """Return the names and modules, without touching those of the parent."""
        own = max(0, len(sys.modules) - self._inherited)
        return list(islice(reversed(sys.modules.items()), own))
