"""Whose a module, class, function or instance is, without asking it: a proxy or a lazy module must not wake."""

import sys
from types import FunctionType, ModuleType

_module_of_class = type.__dict__["__module__"].__get__
_plain_getattribute = ModuleType.__getattribute__


def namespace(module: ModuleType) -> dict[str, object]:
    """Return a module's dict without asking the module, which a lazy one would take for use."""
    found: dict[str, object] = _plain_getattribute(module, "__dict__")
    return found


def kept_metadata(module: ModuleType) -> list[object]:
    """Return what an emptied module keeps that an application may hold: how it is found and loaded."""
    contents = namespace(module)
    return [contents.get(name) for name in ("__spec__", "__loader__", "__path__")]


def belongs(name: str, package: str) -> bool:
    """Return whether a module's name is the package's or below it."""
    return name == package or name.startswith(package + ".")


def owner_of(thing: object) -> str | None:
    """Return the name of the module that a class, function, module or an instance's class says it is from.

    Asks `type(thing)` and never the object: a proxy or a lazy module must not wake.
    """
    kind = type(thing)
    if issubclass(kind, ModuleType):
        name = namespace(thing).get("__name__")  # type: ignore[arg-type]  # it is a module: see the line above
    elif kind is FunctionType:
        name = thing.__globals__.get("__name__")  # type: ignore[attr-defined]  # it is a function
    else:
        try:
            name = _module_of_class(thing if issubclass(kind, type) else kind)
        except AttributeError:  # a class whose dict has no `__module__`
            name = None
    return name if type(name) is str else None


def modules_of(package: str) -> dict[str, ModuleType]:
    """Return the package's modules, in the order in which they were loaded.

    Not what `sys.modules` holds under its name and is another package's module, as requests.packages.urllib3 is.
    """
    found = {name: module for name, module in list(sys.modules.items()) if belongs(name, package)}
    return {name: module for name, module in found.items() if not _is_anothers(module, package)}


def _is_anothers(module: object, package: str) -> bool:
    if not issubclass(type(module), ModuleType):
        return False
    contents = namespace(module)  # type: ignore[arg-type]  # it is a module: see the line above
    name = getattr(contents.get("__spec__"), "name", None)
    return type(name) is str and not belongs(name, package) and sys.modules.get(name) is module
