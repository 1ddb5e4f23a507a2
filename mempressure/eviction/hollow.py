"""Emptied packages: modules that are where they were, and are filled again when one of their attributes is asked for.

A package is filled by one thread, which holds the import locks of all its modules, as if it imported them all at once;
other threads wait for the whole, and whatever they ask for they find, or they become the next to try.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import get_ident
from types import ModuleType
from typing import Any

from mempressure.eviction.ownership import belongs, namespace
from mempressure.eviction.registries import WarningFilter
from mempressure.packages.accessed_bit import exchange_class
from mempressure.packages.deferred_import import TrackingFinder
from mempressure.packages.reservation import Reserve

_plain_getattribute = ModuleType.__getattribute__

_bootstrap: Any = sys.modules["importlib._bootstrap"]
"""Private, for its locks: see `import_lock`."""

_METADATA = frozenset(
    f"__{name}__" for name in ("class", "name", "spec", "loader", "package", "file", "cached", "reduce_ex")
)
"""What the import system, inspect and pickle read of modules that they only pass by. `__path__` is not among them: it
is read to import a submodule, which needs its package."""


class HollowModule(ModuleType):
    """A module of an emptied package: asking for anything fills the package again."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name in _METADATA:
            return _plain_getattribute(self, name)
        filled = _filled(self)
        # By its class, which tells whether the module has been emptied again since it was filled.
        return _plain_getattribute(self, name) if filled is None else getattr(filled, name)

    def __setattr__(self, name: str, value: object) -> None:
        filled = _filled(self)
        if filled is None:
            super().__setattr__(name, value)
        else:
            setattr(filled, name, value)

    def __delattr__(self, name: str) -> None:
        filled = _filled(self)
        if filled is None:
            super().__delattr__(name)
        else:
            delattr(filled, name)

    def __dir__(self) -> list[str]:
        filled = _filled(self)
        return list(super().__dir__()) if filled is None else dir(filled)

    def __reduce_ex__(self, protocol: object) -> tuple[object, tuple[str]]:
        # cloudpickle knows modules by their exact type.
        return (import_module, (_plain_getattribute(self, "__name__"),))


class HollowPackage:
    """The modules of one emptied package, and how to fill them.

    Args:
        name: the package.
        modules: its modules by name, in the order in which they were loaded.
        filters: warning filters to set again.
        reserve: called before it is filled, to reserve what loading it takes.

    Attributes:
        specs: by name, how each module is found and loaded.
    """

    def __init__(
        self, name: str, modules: dict[str, ModuleType], filters: list[WarningFilter], *, reserve: Reserve | None = None
    ) -> None:
        self.name = name
        self._modules = modules
        self.specs = {name: namespace(module)["__spec__"] for name, module in modules.items()}
        self._filters = filters
        self._reserve = reserve
        self._thread: int | None = None
        """Which thread fills the modules."""

    def bare(self, name: str) -> dict[str, Any]:
        """Return what the namespace of one of the modules holds while it is empty."""
        spec: Any = self.specs[name]
        metadata = {"__name__": name, "__spec__": spec, "__loader__": spec.loader, "__package__": spec.parent}
        if spec.submodule_search_locations is not None:
            metadata["__path__"] = spec.submodule_search_locations
        if spec.has_location:
            metadata["__file__"] = spec.origin
            if spec.cached is not None:
                metadata["__cached__"] = spec.cached
        return metadata

    @property
    def in_place(self) -> bool:
        """Return whether `sys.modules` still holds the package's own module."""
        return sys.modules.get(self.name) is self._modules[self.name]

    @property
    def filled_by_this_thread(self) -> bool:
        """Return whether the calling thread is filling the modules, and must see them as they are."""
        return self._thread == get_ident()

    def fill(self) -> None:
        """Load the package again, or wait until another thread has.

        Raises:
            MemoryBudgetExceeded: there is no room for it.
            Exception: what importing the package raised; it is empty then, and the next access tries again.
        """
        with ExitStack() as locks:
            locks.enter_context(import_lock(self.name))
            if _hollow.get(self.name) is not self:
                return
            if self._reserve is not None:
                locks.enter_context(self._reserve(self.name, 0))
            # A thread that imports one of the submodules waits for us outside it, rather than inside for our root.
            for name in self._modules:
                locks.enter_context(import_lock(name))
            self._thread = get_ident()
            try:
                self._import()
            finally:
                self._thread = None

    def spec_of(self, name: str) -> ModuleSpec | None:
        """Return a new spec by which the import system fills module `name`; None where it is not one of these."""
        known: Any = self.specs.get(name)
        if known is None:
            return None
        spec = ModuleSpec(name, known.loader)
        vars(spec).update(vars(known))
        spec.loader = _FillingLoader(known.loader, self._modules[name])
        return spec

    def after_fork(self) -> None:
        """Begin anew in a forked child: of the threads of its parent only the calling one is here."""
        for name in self._modules:
            _bootstrap._module_locks.pop(name, None)  # noqa: SLF001 -- a thread that is not here may hold it
        if self._thread not in (None, get_ident()):
            self._empty()
            self._thread = None

    def _import(self) -> None:
        replaced = not self.in_place
        for name, module in self._modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        if replaced:  # somebody deleted or replaced it: these modules pass on to what is there
            self._give_up()
            return
        try:
            import_module(self.name)
            for name in self._modules:
                import_module(name)
        except BaseException:
            self._empty()
            raise
        for entry in self._filters:
            entry.set_again()
        for name, module in self._modules.items():
            if sys.modules.get(name) is module:
                exchange_class(module, HollowModule, ModuleType)
        self._give_up()

    def _give_up(self) -> None:
        del _hollow[self.name]
        if not _hollow and _finder in sys.meta_path:
            sys.meta_path.remove(_finder)

    def _empty(self) -> None:
        """Leave the modules as they were before the attempt to fill them."""
        for name in [name for name in list(sys.modules) if belongs(name, self.name)]:
            del sys.modules[name]
        for name, module in self._modules.items():
            contents = namespace(module)
            contents.clear()
            contents.update(self.bare(name))
            sys.modules[name] = module


class _FillingLoader(Loader):
    """Stands for a module's loader until the module is executed: has it filled in place."""

    def __init__(self, real: Any, module: ModuleType) -> None:
        self._real = real
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002 -- a loader is given it
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        contents = namespace(module)
        contents["__loader__"] = contents["__spec__"].loader = self._real  # type: ignore[attr-defined]  # it is a spec
        self._real.exec_module(module)


class _FillingFinder(MetaPathFinder):
    """Finds the modules of an emptied package for the thread that fills it, and nothing else."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 -- a finder is given it
        target: ModuleType | None = None,  # noqa: ARG002 -- likewise
    ) -> ModuleSpec | None:
        package = _hollow.get(fullname.partition(".")[0])
        return package.spec_of(fullname) if package is not None and package.filled_by_this_thread else None


_hollow: dict[str, HollowPackage] = {}
_finder = _FillingFinder()


def is_hollow(package: str) -> bool:
    """Return whether a package is empty now: its modules, and not others that somebody put in their place."""
    hollow = _hollow.get(package)
    return hollow is not None and hollow.in_place


def register(package: HollowPackage) -> None:
    """Have accesses to a package's hollow modules fill it."""
    _hollow[package.name] = package
    if _finder not in sys.meta_path:
        # Behind the one that measures imports, which asks those behind it.
        first = next((at for at, finder in enumerate(sys.meta_path) if type(finder) is TrackingFinder), -1)
        sys.meta_path.insert(first + 1, _finder)


def unregister(package: HollowPackage) -> None:
    """Take `register` back."""
    package._give_up()  # noqa: SLF001 -- its opposite, in the same module


def import_lock(name: str) -> Any:
    """Return a context manager that holds the import system's own lock of a module.

    Private, and still the same since Python 3.3; its deadlock detection knows which thread imports what, and a lock of
    ours would close cycles that it could not see.
    """
    return _bootstrap._ModuleLockManager(name)  # noqa: SLF001 -- see above


def _filled(module: ModuleType) -> ModuleType | None:
    """Fill a hollow module's package; return the module, or what is in its place; None in the thread that fills it."""
    name: str = _plain_getattribute(module, "__name__")
    package = _hollow.get(name.partition(".")[0])
    if package is not None:
        if package.filled_by_this_thread:
            return None
        package.fill()
    if type(module) is HollowModule and sys.modules.get(name) is not module:
        return import_module(name)  # it was deleted or replaced while it was empty
    return module


def _after_fork_in_child() -> None:
    for package in list(_hollow.values()):
        package.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
