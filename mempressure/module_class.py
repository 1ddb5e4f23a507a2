"""Changing a module's class in one step, while other threads may be changing it too."""

from itertools import chain
from operator import is_, not_
from types import ModuleType

set_attribute = object.__setattr__


def exchange_class(module: ModuleType, before: type[ModuleType], after: type[ModuleType]) -> bool:
    """Make `module` an instance of `after` if it is one of `before` exactly; return whether it was.

    Looking and changing are one call of C code, in which the interpreter lets no other thread run: a class that was
    put there between the two would be lost, and with it the only sign that a module is empty.

    Raises:
        TypeError: the module's layout is its own; an extension made it.
    """
    kind_matches = map(is_, map(type, (module,)), (before,))
    return all(chain(kind_matches, map(not_, map(set_attribute, (module,), ("__class__",), (after,)))))
