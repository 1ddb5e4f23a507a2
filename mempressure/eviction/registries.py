"""The lists of the standard library that packages enter themselves into when they are imported.

An entry that belongs to the package would keep it alive. It is no pin: it is taken out in the step that empties the
package, and importing the package again enters it again.
"""

import copyreg
import sys
import typing
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

from mempressure.eviction.ownership import belongs, namespace, owner_of


@dataclass(slots=True)
class Registrations:
    """A package's entries in the registries, and how to take them out."""

    registries: list[Any] = field(default_factory=list)
    """What holds entries of the package: dicts and lists."""
    entries: list[Any] = field(default_factory=list)
    """Objects that only exist to be an entry: tuples of warning filters, dicts of overloads."""
    keys: list[tuple[dict[Any, Any], Any, None]] = field(default_factory=list)
    """Arguments for `dict.pop`."""
    filters: list[tuple[list[Any], Any]] = field(default_factory=list)
    """Arguments for `list.remove`."""
    filters_by_name: list["WarningFilter"] = field(default_factory=list)

    def own_references(self) -> list[Any]:
        """Return what of this object refers to entries, for whoever counts references."""
        return [self.entries, *self.keys, *self.filters]

    def forget(self) -> None:
        """Refer to no entry any more."""
        for references in (self.keys, self.filters, self.entries):
            references.clear()


def registrations_of(package: str) -> Registrations:
    """Find a package's entries. Clears the caches of typing, which hold classes of everybody and are mere caches."""
    for module in (typing, sys.modules.get("typing_extensions")):
        for clear in list(getattr(module, "_cleanups", ())):
            clear()
    found = Registrations()
    # Private, for clear_overloads() forgets everybody's.
    overloads: dict[str, Any] = typing._overload_registry  # type: ignore[attr-defined]  # noqa: SLF001 -- see above
    _find(found, overloads, {name for name in overloads if belongs(name, package)})
    found.entries += [overloads[name] for name in overloads if belongs(name, package)]
    _find(found, copyreg.dispatch_table, _owned_keys(copyreg.dispatch_table, package))
    reduction = sys.modules.get("multiprocessing.reduction")
    if reduction is not None:
        reducers = reduction.ForkingPickler._extra_reducers  # noqa: SLF001 -- register() has no opposite
        _find(found, reducers, _owned_keys(reducers, package))
    _find_warnings_seen(found, package)
    _find_filters(found, package)
    return found


def filters_changed() -> None:
    """Have the interpreter look at the warning filters anew."""
    warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001 -- what warnings.simplefilter() calls


class WarningFilter:
    """A warning filter on a class of a package, kept by name while the package is empty."""

    def __init__(self, at: int, entry: tuple[Any, ...]) -> None:
        self._at = at
        self._rest = (entry[0], entry[1], entry[3], entry[4])
        self._module = owner_of(entry[2]) or ""
        self._qualname: str = entry[2].__qualname__

    def set_again(self) -> None:
        """Set the filter, unless loading the package has done so, or its class is gone."""
        category: Any = sys.modules.get(self._module)
        for name in self._qualname.split("."):
            category = getattr(category, name, None)
        action, message, module, line = self._rest
        entry = (action, message, category, module, line)
        if category is not None and entry not in warnings.filters:
            filters: list[Any] = warnings.filters  # type: ignore[assignment]  # declared as a Sequence, and is a list
            filters.insert(self._at, entry)
            filters_changed()


def _find(found: Registrations, registry: dict[Any, Any], keys: set[Any]) -> None:
    if keys:
        found.registries.append(registry)
        found.keys += [(registry, key, None) for key in keys]


def _find_warnings_seen(found: Registrations, package: str) -> None:
    """Find which of the package's warnings were shown: the keys, (text, class, line), hold their classes."""
    seen_by = [warnings.onceregistry]  # type: ignore[attr-defined]  # undocumented, and there since Python 2
    for module in list(sys.modules.values()):
        if issubclass(type(module), ModuleType):
            seen = namespace(module).get("__warningregistry__")
            if type(seen) is dict:
                seen_by.append(seen)
    for seen in seen_by:
        keys = {key for key in list(seen) if type(key) is tuple and len(key) > 1 and _owned(key[1], package)}
        _find(found, seen, keys)
        found.entries += keys


def _find_filters(found: Registrations, package: str) -> None:
    _let_go_of_old_filters()
    filters: list[Any] = warnings.filters  # type: ignore[assignment]  # declared as a Sequence, and is a list
    for at, entry in enumerate(list(filters)):
        if _owned(entry[2], package):
            found.entries.append(entry)
            found.filters.append((filters, entry))
            found.filters_by_name.append(WarningFilter(at, entry))
    if found.filters:
        found.registries.append(filters)


def _let_go_of_old_filters() -> None:
    """Have the interpreter drop the list of filters of the last warning: after `catch_warnings` it is a copy."""
    with suppress(TypeError, AttributeError):  # repr is no category, which is found out once the list was taken
        warnings.warn_explicit("", repr, "", 0)  # type: ignore[call-overload]  # see above


def _owned_keys(registry: dict[Any, Any], package: str) -> set[Any]:
    return {
        key
        for key, value in list(registry.items())
        if _owned(key, package) or (type(value) is FunctionType and _owned(value, package))
    }


def _owned(thing: object, package: str) -> bool:
    owner = owner_of(thing)
    return owner is not None and belongs(owner, package)
