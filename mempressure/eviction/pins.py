"""What forbids emptying a package: references into it from outside, and state that would be lost with it.

A pin is a readable line. Nothing here changes anything.
"""

import gc
import re
import sys
import threading
import weakref
from _thread import LockType
from collections import deque
from io import BufferedRandom, BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GenericAlias,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    UnionType,
    WrapperDescriptorType,
)

from mempressure.eviction.closure import Closure, all_loggers
from mempressure.eviction.dependencies import dependencies_of
from mempressure.eviction.holders import UNSEEN, Holder, describe, holders_of
from mempressure.eviction.ownership import belongs, kept_metadata, owner_of

MOST_PINS = 10
"""How many are named; a package that the application holds by fifty names is as pinned as by ten."""

_STATELESS = frozenset({
    tuple, frozenset, MappingProxyType, property, classmethod, staticmethod, re.Pattern,
    BuiltinFunctionType, MethodType, MethodWrapperType, WrapperDescriptorType, MethodDescriptorType,
    ClassMethodDescriptorType, GetSetDescriptorType, MemberDescriptorType, GenericAlias, UnionType,
})  # fmt: skip
_STATELESS_OWNERS = ("typing", "typing_extensions", "functools")
"""Their instances are types, and entries of caches, whatever refers to them."""

_FILES = (FileIO, BufferedReader, BufferedWriter, BufferedRandom, TextIOWrapper)
_WEAKLY_KNOWN = (type, threading.local)
"""Classes are in their bases' lists of subclasses and in the caches of abstract classes, locals in each thread's state:
they may vanish there."""


def frames_inside(closure: Closure) -> list[str]:
    """Return the functions of the package that some thread is in."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for thread_id, frame in sys._current_frames().items():  # noqa: SLF001 -- documented in the sys module
        where = _where_inside(frame, closure.dict_ids)
        if where is not None:
            found.append(f"thread {names.get(thread_id, thread_id)!r} is in {where}")
    del frame  # this thread's is this very function's, and would keep itself and the closure alive
    return found


def _where_inside(frame: FrameType | None, dict_ids: set[int]) -> str | None:
    while frame is not None:
        if id(frame.f_globals) in dict_ids:
            return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
        frame = frame.f_back
    return None


def outside_references(closure: Closure) -> tuple[list[str], list[object]]:
    """Return the pins, and the objects that only the package itself refers to: all of its own where there is no pin.

    What is also referred to from outside, as everything that the package imported is, stays out of the second list
    with all that it reaches.
    """
    root_of = _reached_from_outside(closure)
    objects = closure.objects
    pinned: dict[int, int] = {}
    for at, root in root_of.items():
        if root not in pinned and closure.owns(objects[at]):
            pinned[root] = at
    lines = _pins(closure, pinned)
    if not lines:
        trusted = dependencies_of(closure.package)
        roots = [objects[root] for root in set(root_of.values())]
        foreign = [objects[at] for at in root_of]
        lines = _shared(closure, roots, trusted) + _registered(closure, foreign, root_of, trusted) + _logged(closure)
    private = [thing for at, thing in enumerate(objects) if at not in root_of and id(thing) not in closure.module_ids]
    return lines[:MOST_PINS], private


def lost_state(closure: Closure, private: list[object]) -> list[str]:
    """Return what would end or be forgotten with the package's private objects."""
    own_kinds = {kind for kind in set(map(type, private)) if closure.owns(kind)}
    finalized = {kind for kind in own_kinds if any("__del__" in vars(base) for base in kind.__mro__)}
    inside = set(map(id, private))
    lines: dict[str, None] = {}
    for thing in private:
        kind = type(thing)
        line = None
        if kind in finalized:
            line = f"{describe(thing)} has a __del__ method, which would run in an emptied package"
        elif kind is FunctionType or (kind in own_kinds and not issubclass(kind, _WEAKLY_KNOWN)):
            if weakref.getweakrefcount(thing) and any(id(ref) not in inside for ref in weakref.getweakrefs(thing)):
                line = f"{describe(thing)} is registered elsewhere by a weak reference"
        else:
            line = _running(thing)
        if line is not None:
            lines[line] = None
    return list(lines)[:MOST_PINS]


def _running(thing: object) -> str | None:
    """Return what a thing of the standard library is in the midst of; None for nearly all."""
    kind = type(thing)
    if kind is GeneratorType:
        suspended = thing.gi_frame is not None  # type: ignore[attr-defined]  # its type was just looked at
    elif kind is CoroutineType:
        suspended = thing.cr_frame is not None  # type: ignore[attr-defined]  # likewise
    elif kind is AsyncGeneratorType:
        suspended = thing.ag_frame is not None  # type: ignore[attr-defined]  # likewise
    elif kind is LockType:
        return "a lock of the package is held" if thing.locked() else None  # type: ignore[attr-defined]  # likewise
    else:
        return _open_file(thing, kind)
    return f"{describe(thing)} is suspended" if suspended else None


def _open_file(thing: object, kind: type) -> str | None:
    sockets = sys.modules.get("_socket")
    if kind in _FILES:
        is_open = not thing.closed  # type: ignore[attr-defined]  # it is one of the types of files
    elif sockets is not None and issubclass(kind, sockets.socket):
        is_open = sockets.socket.fileno(thing) != -1
    else:
        return None
    return f"{describe(thing)} of the package is open" if is_open else None


def _reached_from_outside(closure: Closure) -> dict[int, int]:
    """Return the positions of objects that something outside refers to or reaches, each with where it begins."""
    position = {id(thing): at for at, thing in enumerate(closure.objects)}
    root_of: dict[int, int] = {}
    pending: deque[int] = deque()
    # Their entries that are the package's are taken out; the others have holders of their own.
    passed = set(map(id, closure.registrations.registries))
    for at, (thing, count) in enumerate(zip(closure.objects, closure.external, strict=True)):
        # A module may be referred to: it stays, and is filled again when it is used.
        if count > 0 and id(thing) not in closure.module_ids:
            root_of[at] = at
            if id(thing) not in passed:
                pending.append(at)
    while pending:
        at = pending.popleft()
        for thing in gc.get_referents(closure.objects[at]):
            below = position.get(id(thing))
            if below is not None and below not in root_of and id(thing) not in closure.module_ids:
                root_of[below] = root_of[at]
                pending.append(below)
    return root_of


def _pins(closure: Closure, pinned: dict[int, int]) -> list[str]:
    if not pinned:
        return []
    chosen = dict(list(pinned.items())[:MOST_PINS])
    roots = [closure.objects[root] for root in chosen]
    holders = holders_of(roots, package=closure.package, inside=closure.objects, besides=(closure.objects,))
    lines = []
    for root, at in chosen.items():
        holder = holders.get(id(closure.objects[root]), Holder(UNSEEN, ""))
        between = holder.through if root == at else describe(closure.objects[root])
        through = f" through {between}" if between else ""
        lines.append(f"{describe(closure.objects[at])} is held{through} by {holder.text}")
    return lines


def _shared(closure: Closure, roots: list[object], trusted: set[str]) -> list[str]:
    """Return what application and package share though its class tells not whose it is: a dict, a list, a queue."""
    known = set(map(id, closure.registrations.registries))
    stays = known | {id(value) for module in closure.modules.values() for value in kept_metadata(module)}
    suspects = [thing for thing in roots if _has_state(thing) and id(thing) not in stays]
    if not suspects:
        return []
    holders = holders_of(suspects, package=closure.package, inside=closure.objects, besides=(closure.objects, roots))
    held = [(thing, holders.get(id(thing), Holder(UNSEEN, ""))) for thing in suspects]
    return [
        f"{describe(thing)} of the package is held by {holder.text}"
        for thing, holder in held
        if not _trusted(holder, trusted)
    ]


def _registered(closure: Closure, foreign: list[object], root_of: dict[int, int], trusted: set[str]) -> list[str]:
    """Return what the application gave to the package, which would forget it."""
    given = []
    for thing in foreign:
        owner = owner_of(thing)
        top = (owner or "").partition(".")[0]
        if owner is not None and top not in trusted and not issubclass(type(thing), ModuleType):
            given.append(thing)
    if not given:
        return []
    private = {id(thing) for at, thing in enumerate(closure.objects) if at not in root_of}
    lines = []
    wanted = {id(thing) for thing in given}
    for referrer in gc.get_referrers(*given):
        if id(referrer) in private:
            lines += [
                f"{describe(thing)} was given to the package, which would forget it"
                for thing in gc.get_referents(referrer)
                if id(thing) in wanted
            ]
    return list(dict.fromkeys(lines))


def _logged(closure: Closure) -> list[str]:
    """Return the handlers and filters on the package's loggers: filling it again might add them a second time."""
    lines: dict[str, None] = {}
    for logger in all_loggers():
        name = getattr(logger, "name", None)  # only loggers have one
        if type(name) is str and belongs(name, closure.package):
            for added in (*getattr(logger, "handlers", ()), *getattr(logger, "filters", ())):
                if type(added) is not sys.modules["logging"].NullHandler:
                    lines[f"{describe(added)} is on the logger {name!r}"] = None
    return list(lines)


def _trusted(holder: Holder, trusted: set[str]) -> bool:
    return holder.module.partition(".")[0] in trusted


def _has_state(thing: object) -> bool:
    kind = type(thing)
    if owner_of(kind) in _STATELESS_OWNERS:
        return False
    return not (kind in _STATELESS or kind is FunctionType or issubclass(kind, (type, ModuleType)))
