"""The mechanisms, one module each, named as in `mempressure.mechanisms`: how each plans, acts and is rehearsed."""

from importlib import import_module

from mempressure import mechanisms as registry
from mempressure.act.mechanisms.base import Mechanism


def mechanism(name: str) -> Mechanism:
    """Return the mechanism of that name, which the registry has."""
    found: Mechanism = import_module(f"{__name__}.{name}").MECHANISM
    return found


def mechanisms() -> tuple[Mechanism, ...]:
    """Return all mechanisms, mildest first."""
    return tuple(map(mechanism, registry.NAMES))


def worker_replacing_names() -> frozenset[str]:
    """Return the names of the mechanisms that end a worker for its successor."""
    return frozenset(each.name for each in mechanisms() if each.replaces_worker)


def rehearsed_mechanisms() -> tuple[Mechanism, ...]:
    """Return the mechanisms that unload packages and that a rehearsal can try, mildest first."""
    return tuple(each for each in mechanisms() if each.unloads_packages and each.is_rehearsed)
