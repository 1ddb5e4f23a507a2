"""The accessed bit: whether a module was used since the last look, at no cost between uses.

A module's `__class__` is swapped for one whose first attribute access notes the module and swaps the class back: from
then on reads are plain again (0.96x a never armed module, where a proxy object costs 40x). A module whose next access
will be noted is *armed*; the agent looks, and arms again, at each *tick*, once a second. The bit proves use, never
disuse: a function held elsewhere runs without touching its module.
"""

from collections.abc import Iterable
from itertools import chain
from operator import is_, not_
from types import ModuleType

from mempressure.forks import ensure_own_process

_set_attribute = object.__setattr__


def _exchange_class(module: ModuleType, before: type[ModuleType], after: type[ModuleType]) -> bool:
    """Make `module` an instance of `after` if it is one of `before` exactly; return whether it was.

    Looking and changing are one call of C code, in which the interpreter lets no other thread run: a class that another
    thread put there between the two would be lost.

    Raises:
        TypeError: the module's layout is its own; an extension made it.
    """
    kind_matches = map(is_, map(type, (module,)), (before,))
    return all(chain(kind_matches, map(not_, map(_set_attribute, (module,), ("__class__",), (after,)))))


_plain_getattribute = ModuleType.__getattribute__

# A dict and not a set: its assignment of a constant key is atomic, and readers take it away whole.
_used: dict[str, bool] = {}


class ArmedModule(ModuleType):
    """A module whose next attribute access will be noted."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> object:
        # Look up first: the attribute must be found, or its AttributeError raised, also where other threads disarm.
        value = _plain_getattribute(self, name)
        # Dunder names are read by the import system, pickle and inspect on their way round; that is no use.
        if not (name.startswith("__") and name.endswith("__")):
            _used[_plain_getattribute(self, "__name__")] = True
            disarm(self)
            ensure_own_process()
        return value

    def __reduce_ex__(self, protocol: object) -> tuple[object, tuple[str]]:
        # cloudpickle knows modules by their exact type.
        from importlib import import_module

        return (import_module, (_plain_getattribute(self, "__name__"),))


def arm(module: ModuleType) -> bool:
    """Have the next access to `module` noted; False where its class is its own and must not be touched."""
    try:
        return _exchange_class(module, ModuleType, ArmedModule) or type(module) is ArmedModule
    except TypeError:  # an extension's module whose layout is its own
        return False


def disarm(module: ModuleType) -> None:
    """Make an armed module plain again."""
    _exchange_class(module, ArmedModule, ModuleType)


def take_used(names: Iterable[str]) -> set[str]:
    """Return which of the named modules were used since they were armed, and forget it."""
    return {name for name in names if _used.pop(name, False)}


def reason_unsupported() -> str:
    """Try it on a throw-away module; return why it does not work in this interpreter, empty where it does."""
    name = "mempressure accessed-bit trial"
    module = ModuleType(name)
    vars(module)["attribute"] = name
    try:
        armed = arm(module)
        read = module.attribute
        used = take_used([name])
    except Exception as error:  # noqa: BLE001 -- any exception means that this interpreter does not support it
        return f"this interpreter does not let a module's class be swapped: {type(error).__name__}: {error}"
    if not armed or read != name or used != {name} or type(module) is not ModuleType:
        return "in this interpreter the swapped class of a module does not see its attributes being read"
    return ""
