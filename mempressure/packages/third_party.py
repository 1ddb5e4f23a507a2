"""Which top-level modules are installed packages, neither the standard library's nor the application's own."""

import os
import sys
from importlib.machinery import PathFinder

_INSTALLED_IN = frozenset({"site-packages", "dist-packages"})
_OWN = frozenset({"mempressure", "sitecustomize", "usercustomize"})


def is_third_party(name: str) -> bool:
    """Return whether a top-level module is installed: not the standard library's, nor the application's own."""
    if name in sys.stdlib_module_names or name in _OWN or name.startswith("_"):
        return False
    spec = PathFinder.find_spec(name)
    if spec is None:
        return False
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""]
    return any(not _INSTALLED_IN.isdisjoint(place.split(os.sep)) for place in places)
