"""Evicting: emptying a package in place, or refusing it by name."""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES, BuiltinImporter, ExtensionFileLoader, FrozenImporter
from types import ModuleType
from typing import Any

from mempressure.act.self_check import frozen_objects
from mempressure.act.trim import release_free_pages
from mempressure.errors import EvictionRefusedError
from mempressure.eviction.closure import closure_of
from mempressure.eviction.emptying import Candidate, empty
from mempressure.eviction.hollow import import_lock, is_hollow
from mempressure.eviction.ownership import modules_of, namespace
from mempressure.eviction.pins import frames_inside, lost_state, outside_references
from mempressure.measure.process import private_bytes
from mempressure.packages.accessed_bit import ArmedModule
from mempressure.packages.reservation import Reserve

_ATTEMPTS = 3
"""Looks at a package that other threads use meanwhile: each can be spoilt by a single access."""

_turn = threading.Lock()
"""One eviction at a time."""

_inherited: frozenset[str] = frozenset()
"""Top-level names of what was loaded when this process was forked."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """What evicting a package brought; bytes are measured."""

    package: str
    reclaimed_bytes: int
    modules: int
    seconds: float
    stalled_seconds: float
    """Of these, for how long no other thread of the process could run."""


def evict(package: str, *, unless: Callable[[], str | None] = lambda: None, reserve: Reserve | None = None) -> Eviction:
    """Empty a pure-Python package in place: its modules stay, and are filled again at the next use.

    Args:
        package: the name of a loaded top-level package or module.
        unless: asked right before it is emptied; refused for the reason that this returns.
        reserve: called before it is filled again, to reserve what loading it takes.

    Raises:
        EvictionRefusedError: it cannot be done safely; everything is as it was before.
    """
    started = time.perf_counter()
    with _turn:
        _require_possible(package)
        held = private_bytes()
        for _ in range(_ATTEMPTS):
            candidate = _looked_at(package)
            count = len(candidate.modules)
            if (reason := unless()) is not None:
                raise EvictionRefusedError(package, reason)
            with import_lock(package):
                began = time.perf_counter()
                done = empty(package, candidate, reserve=reserve)
                stalled = time.perf_counter() - began
            if done:
                break
            del candidate  # its lists hold what the next look is to find held by nobody
        else:
            raise EvictionRefusedError(package, "it is in use: something referred to it at each look")
        release_free_pages()
        reclaimed = max(0, held - private_bytes())
    return Eviction(package, reclaimed, count, time.perf_counter() - started, stalled)


def _looked_at(package: str) -> Candidate:
    modules = modules_of(package)
    _require_suited(package, modules)
    gc.collect()  # what is garbage already pins nothing
    found = _look(package, modules)
    if not isinstance(found, Candidate):
        # Raised here, where no frame that the traceback keeps has the package's objects.
        raise EvictionRefusedError(package, "it is pinned", found)
    return found


def _look(package: str, modules: dict[str, ModuleType]) -> Candidate | tuple[str, ...]:
    """Return the package as one to be emptied, or its pins."""
    closure = closure_of(package, modules)
    pins, private = outside_references(closure)
    # The threads that are inside explain what they hold, which is all the more pins.
    lines = frames_inside(closure) or pins or lost_state(closure, private)
    return tuple(lines) or Candidate(modules, [private], closure.registrations)


def _require_possible(package: str) -> None:
    """Refuse what this process cannot do for any package, or for this one whatever it holds."""
    reason = impossible_here()
    if reason is None and package.partition(".")[0] != package:
        reason = "only whole packages are evicted, by their top-level name"
    elif reason is None and package == "mempressure":
        reason = "it is what evicts"
    elif reason is None and is_hollow(package):
        reason = "it is empty already"
    elif reason is None and package not in sys.modules:
        reason = "it is not loaded"
    elif reason is None and package in _inherited:
        reason = "it was loaded before this process was forked, and emptying it would unshare the parent's pages"
    if reason is not None:
        raise EvictionRefusedError(package, reason)


def impossible_here() -> str | None:
    """Return why nothing can be evicted in this process; None where it can be tried."""
    if sys.implementation.name != "cpython" or sys.version_info >= (3, 14):
        return "emptying in one step is only known to hold on CPython 3.11 to 3.13"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "this interpreter runs without a global lock, and threads cannot be kept out"
    if frozen_objects():
        return "gc.freeze() is in force: what is frozen is never collected, and what it refers to cannot be told"
    try:
        sys.audit(None)  # type: ignore[arg-type]  # looked at only where there is an audit hook
    except TypeError:
        return "an audit hook is installed, which lets other threads run in the midst of the step"
    return None


def _require_suited(package: str, modules: dict[str, ModuleType]) -> None:
    for name, module in modules.items():
        reason = _unsuited(name, module)
        if reason is not None:
            raise EvictionRefusedError(package, reason)


def _unsuited(name: str, module: ModuleType) -> str | None:
    """Return why a module cannot be emptied and filled again; None where it can."""
    if type(module) not in (ModuleType, ArmedModule):
        return f"{name} is no plain module but of class {type(module).__qualname__}"
    contents = namespace(module)
    spec: Any = contents.get("__spec__")
    if spec is None or contents.get("__name__") != name or spec.name != name:
        return f"{name} has no import specification of its own by which it could be loaded again"
    if getattr(spec, "_initializing", False):
        return f"{name} is being imported now"
    loader = spec.loader
    extension = isinstance(loader, ExtensionFileLoader) or str(spec.origin).endswith(tuple(EXTENSION_SUFFIXES))
    if extension or loader in (BuiltinImporter, FrozenImporter):
        return f"{name} is an extension module, which the interpreter never unloads"
    if not hasattr(loader, "exec_module"):
        return f"{name} has a loader that cannot fill an existing module"
    return None


def _after_fork_in_child() -> None:
    global _inherited, _turn  # noqa: PLW0603 -- this process' own; the thread that evicts may not be here
    _inherited = frozenset(name for name in sys.modules if "." not in name and not is_hollow(name))
    _turn = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
