"""Memory pressure management for Python services: measure memory, alert on it, give idle packages' memory back."""

import sys

# Not typing's own: importing typing would be a quarter of a package process's start.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from mempressure.control.monitor import MemoryMonitor
    from mempressure.loader import LazyLoader, get_lazy_loader
    from mempressure.worker.declarations import UnloadResult

__all__ = ["LazyLoader", "MemoryMonitor", "UnloadResult", "get_lazy_loader"]
__version__ = "0.1.0"

_HOMES = {
    "LazyLoader": "mempressure.loader",
    "MemoryMonitor": "mempressure.control.monitor",
    "UnloadResult": "mempressure.worker.declarations",
    "get_lazy_loader": "mempressure.loader",
}


def __getattr__(name: str) -> "Any":
    # The services and package processes import parts of this package and must not pay for the rest.
    if name in _HOMES:
        from importlib import import_module

        home = _HOMES[name]
        if name == "get_lazy_loader" and "mempressure.package_process.program" in sys.modules:
            home = "mempressure.package_process.loader"
        return getattr(import_module(home), name)
    raise AttributeError(f"module 'mempressure' has no attribute {name!r}")
