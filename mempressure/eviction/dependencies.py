"""What a package is built on: what it shares with these it was given by them, and they keep it."""

import sys
from types import FunctionType, ModuleType

from mempressure.eviction.ownership import modules_of, namespace, owner_of


def dependencies_of(package: str) -> set[str]:
    """Return the top-level names that a package's modules import, and theirs, the standard library included.

    Seen in the modules' dicts: a module, function or class in them was imported. One that holds the package itself is
    its user and no dependency, whatever of it the package was given.
    """
    by_top: dict[str, list[ModuleType]] = {}
    for name, module in list(sys.modules.items()):
        if issubclass(type(module), ModuleType):
            by_top.setdefault(name.partition(".")[0], []).append(module)
    own = {id(module) for module in modules_of(package).values()}
    found = {package}
    pending = [package]
    while pending:
        for module in by_top.get(pending.pop(), ()):
            for value in list(namespace(module).values()):
                kind = type(value)
                if not (kind is FunctionType or issubclass(kind, (type, ModuleType))):
                    continue
                top = (owner_of(value) or "").partition(".")[0]
                if top in found or top in sys.stdlib_module_names or _uses(by_top.get(top, ()), own):
                    continue
                found.add(top)
                pending.append(top)
    return found | sys.stdlib_module_names | {"mempressure"}  # whose class an armed module is of


def _uses(modules: list[ModuleType] | tuple[()], own: set[int]) -> bool:
    return any(id(value) in own for module in modules for value in list(namespace(module).values()))
