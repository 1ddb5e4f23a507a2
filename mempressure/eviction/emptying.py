"""The step that empties a package: look once more that nothing outside refers to it, and empty it, all at once.

CPython before 3.14 lets another thread run only between two instructions of Python code. The step is one call of
`all()` on iterators that are written in C from end to end, so no thread, signal handler or garbage collection comes
between its parts; `all()` ends at the first part that fails. So the sum of all references that were counted is exact
at the moment the doors are closed, however much other threads changed while the package was looked at.

Not with an audit hook, which is Python code inside some of these calls; nor without a global interpreter lock.
"""

import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat, starmap
from operator import eq, is_, not_, sub
from types import ModuleType
from typing import Any

from mempressure.eviction.closure import references_by_being_looked_at
from mempressure.eviction.hollow import HollowModule, HollowPackage, register, unregister
from mempressure.eviction.ownership import namespace
from mempressure.eviction.registries import Registrations, filters_changed
from mempressure.packages.accessed_bit import disarm, exchange_class, set_attribute
from mempressure.packages.reservation import Reserve


@dataclass(slots=True)
class Candidate:
    """A package that may be emptied, as it was looked at."""

    modules: dict[str, ModuleType]
    private: list[list[object]]
    """One list, of the objects to which only the package refers, its modules left out; taken out when it is emptied."""
    registrations: Registrations


def empty(package: str, candidate: Candidate, *, reserve: Reserve | None = None) -> bool:
    """Empty the package, unless something outside refers to it now; return whether that was done.

    Args:
        package: its name.
        candidate: it, as it was looked at; what this refers to is given up where it is emptied.
        reserve: called before it is filled again.

    Raises:
        Exception: it failed before the package was touched, and everything is as it was.
    """
    modules = list(candidate.modules.values())
    for module in modules:
        disarm(module)
    hollow = HollowPackage(package, candidate.modules, candidate.registrations.filters_by_name, reserve=reserve)
    contents = [namespace(module) for module in modules]
    bare = [hollow.bare(name) for name in candidate.modules]
    untouched = [True]
    register(hollow)
    callbacks, collecting = list(gc.callbacks), gc.isenabled()
    gc.callbacks.clear()  # Python code, between the emptying and the collection
    gc.disable()
    try:
        done = all(_steps(candidate, modules, contents, bare, hollow.specs, untouched))
    except BaseException:
        if not untouched:  # what is left to do cannot be refused: the package is gone
            _finish(candidate, contents, bare)
            return True
        _reopen(modules)
        unregister(hollow)
        raise
    finally:
        gc.callbacks[:0] = callbacks
        if collecting:
            gc.enable()
    if not done:
        unregister(hollow)
        return False
    if candidate.registrations.filters_by_name:
        filters_changed()
    return True


def _steps(
    candidate: Candidate,
    modules: list[ModuleType],
    contents: list[dict[str, Any]],
    bare: list[dict[str, Any]],
    specs: dict[str, Any],
    untouched: list[bool],
) -> Iterator[bool]:
    """Return the step's parts: an iterator that does each when it is asked for it, and gives whether it succeeded."""
    registrations = candidate.registrations
    (private,) = candidate.private
    # Whatever of ours refers to the package's objects, in the way its own objects do.
    own = [contents, *bare, specs, *registrations.own_references()]
    return chain(
        map(is_, map(type, modules), repeat(ModuleType)),
        _nothing_outside_refers_to(private, within=(modules, own, registrations.registries)),
        map(not_, map(set_attribute, modules, repeat("__class__"), repeat(HollowModule))),
        # The doors are closed. From here on there is no way back.
        map(not_, map(list.clear, (untouched,))),
        map(not_, map(dict.clear, contents)),
        map(not_, map(dict.update, contents, bare)),
        _removed(registrations),
        # As a cycle they are found by the collector, which clears all weak references to them before it runs any code.
        map(not_, map(list.append, candidate.private, candidate.private)),
        map(not_, map(list.clear, (candidate.private,))),
        map(isinstance, starmap(gc.collect, ((),)), repeat(int)),
    )


def _nothing_outside_refers_to(private: list[object], *, within: tuple[list[Any], ...]) -> Iterator[bool]:
    """Return an iterator that tells whether all references to the private objects come from them or from `within`.

    No object has fewer references than were found to it, so that the sums are equal where each is.
    """
    targets = frozenset(map(id, private))
    others = [thing for things in within for thing in things if id(thing) not in targets]
    referents = chain.from_iterable(map(gc.get_referents, chain(private, others)))
    found = map(sum, (map(targets.__contains__, map(id, referents)),))
    by_looking = references_by_being_looked_at() * len(private)
    return map(eq, found, map(sub, map(sum, (map(sys.getrefcount, private),)), (by_looking,)))


def _removed(registrations: Registrations) -> Iterator[bool]:
    """Return an iterator that takes the package's entries out of the registries, and forgets them."""
    lists: tuple[list[Any], ...] = (registrations.keys, registrations.filters, registrations.entries)
    return chain(
        map(isinstance, starmap(dict.pop, registrations.keys), repeat(object)),
        map(not_, starmap(list.remove, registrations.filters)),
        map(not_, map(list.clear, lists)),
    )


def _finish(candidate: Candidate, contents: list[dict[str, Any]], bare: list[dict[str, Any]]) -> None:
    """Do what is left of the step after its doors were closed."""
    for namespace_, metadata in zip(contents, bare, strict=True):
        namespace_.clear()
        namespace_.update(metadata)
    for registry, key, default in candidate.registrations.keys:
        registry.pop(key, default)
    for filters, entry in candidate.registrations.filters:
        if entry in filters:
            filters.remove(entry)
    candidate.registrations.forget()
    candidate.private.clear()
    gc.collect()


def _reopen(modules: list[ModuleType]) -> None:
    for module in modules:
        exchange_class(module, HollowModule, ModuleType)
