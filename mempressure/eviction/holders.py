"""Who holds an object, as a reader of the application's code would say it."""

import gc
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    ModuleType,
)
from typing import Any

from mempressure.eviction.ownership import belongs, namespace, owner_of

UNSEEN = (
    "a running function's variable, a thread's local, or C code (an exit handler, a signal handler, an at-fork hook, "
    "a codec)"
)
"""What the garbage collector cannot see; what remains where no holder is found."""

_LEVELS = 4
"""Containers in containers that are looked through for a name; each level costs a pass over all objects."""

_NONE: frozenset[int] = frozenset()
_OWN = "mempressure.eviction."


@dataclass(frozen=True, slots=True)
class Holder:
    """Something outside the package that holds one of its objects."""

    text: str
    module: str
    """The module that it is from; empty where that is not known."""
    through: str = ""
    """An instance of the package's that it holds, and that holds the object."""


def holders_of(
    wanted: list[object], *, package: str, inside: Iterable[object], besides: Iterable[object]
) -> dict[int, Holder]:
    """Return by identity who holds each of the wanted, for those where it can be found.

    Holders `inside` do not count, nor does what `besides` names: the caller's own lists. An instance of the package's
    own classes is looked through, as a list is.
    """
    through: dict[int, str] = {}
    names = {id(namespace(m)): n for n, m in list(sys.modules.items()) if issubclass(type(m), ModuleType)}
    passed = {id(thing) for thing in (*inside, *besides)} | {id(wanted), id(names)}
    origins = {id(thing): {id(thing)} for thing in wanted}
    found: dict[int, Holder] = {}
    level = wanted
    for _ in range(_LEVELS):
        above: dict[int, object] = {}
        next_origins: dict[int, set[int]] = {}
        own = {id(level), id(above), id(next_origins), id(origins), id(found)}
        for referrer in gc.get_referrers(*level):
            if id(referrer) in passed or id(referrer) in own or _is_own_frame(referrer):
                continue
            for thing in gc.get_referents(referrer):
                held = origins.get(id(thing), _NONE) - found.keys()
                if not held:
                    continue
                holder = _named(referrer, thing, names)
                if holder is not None and belongs(holder.module, package):
                    for origin in held:
                        through.setdefault(origin, holder.text)
                    holder = None
                if holder is not None:
                    found.update({origin: replace(holder, through=through.get(origin, "")) for origin in held})
                else:
                    above[id(referrer)] = referrer
                    next_origins.setdefault(id(referrer), set()).update(held)
        passed.update(above)
        level, origins = list(above.values()), next_origins
        if not level:
            break
    unseen = {origin: Holder(UNSEEN, "", text) for origin, text in through.items()}
    return unseen | found


def describe(thing: object) -> str:
    """Name an object without asking it anything."""
    kind = type(thing)
    if kind is FunctionType:
        return f"function {owner_of(thing)}.{thing.__qualname__}"  # type: ignore[attr-defined]  # it is a function
    if issubclass(kind, type):
        return f"class {_class_name(thing)}"
    if issubclass(kind, ModuleType):
        return f"module {owner_of(thing)}"
    if kind in (GeneratorType, CoroutineType, AsyncGeneratorType):
        return f"{kind.__name__} {thing.__qualname__}"  # type: ignore[attr-defined]  # it is one of these
    if kind is dict:
        contents: Any = thing
        if "__spec__" in contents and type(contents.get("__name__")) is str:
            return f"the namespace of module {contents['__name__']}"
    return f"a {kind.__name__}" if kind.__module__ == "builtins" else f"an instance of {_class_name(kind)}"


def _named(referrer: object, thing: object, names: dict[int, str]) -> Holder | None:
    """Return what a referrer is called; None for containers, whose holder says more."""
    kind = type(referrer)
    module = names.get(id(referrer))
    if module is not None:
        key = next((key for key, value in list(referrer.items()) if value is thing), "?")  # type: ignore[attr-defined]
        return Holder(f"{module}.{key}", module)
    if kind is FrameType:
        module = str(referrer.f_globals.get("__name__"))  # type: ignore[attr-defined]  # it is a frame
        return Holder(f"a variable of {module}.{referrer.f_code.co_qualname}", module)  # type: ignore[attr-defined]
    if kind in (GeneratorType, CoroutineType, AsyncGeneratorType):
        return Holder(f"the suspended {describe(referrer)}", "")
    owner = owner_of(referrer) or ""
    nameless = owner.partition(".")[0] in sys.stdlib_module_names and kind is not FunctionType
    # Of a list, a cell, a queue or a partial, who holds it says more.
    return None if nameless and not issubclass(kind, type) else Holder(describe(referrer), owner)


def _is_own_frame(thing: object) -> bool:
    return type(thing) is FrameType and str(thing.f_globals.get("__name__")).startswith(_OWN)


def _class_name(kind: object) -> str:
    qualname = type.__dict__["__qualname__"].__get__(kind)
    return f"{owner_of(kind)}.{qualname}"
