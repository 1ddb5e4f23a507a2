"""Importing on first use, and measuring what an import of a tracked package cost.

A finder at the head of `sys.meta_path` looks at the top-level name of every import: packages that are not tracked pass
at the cost of one dict look-up. At a tracked package's boundary, where code outside it causes one of its modules to be
imported, time and anonymous memory are read before and after; nothing is measured module by module.

A deferred module is the very object that the import system later fills, so its identity never changes and, once it is
loaded, reading its attributes costs what it costs for any module.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from mempressure.forks import ensure_own_process
from mempressure.measure.process import anonymous_bytes
from mempressure.packages.reservation import Reserve

_plain_getattribute = ModuleType.__getattribute__

# What the import system and inspect read of a module they only pass by: answered without loading.
_METADATA = frozenset(
    f"__{name}__" for name in ("cached", "class", "dict", "doc", "file", "loader", "name", "package", "path", "spec")
)


_IMPORTING = frozenset({"importlib", "_frozen_importlib", "_frozen_importlib_external", __name__.partition(".")[0]})
"""Whose code is on the stack between an import statement and the module that it loads."""


class Import(NamedTuple):
    """An import that crossed a tracked package's boundary, as it was measured."""

    package: str
    root: bool
    """Whether the package itself is new, not only a module of it."""
    importer: str
    """The tracked package whose import, or whose call of a function, caused it; empty where the application did."""
    seconds: float
    self_bytes: int
    """By how much memory grew, what imports of other tracked packages within added not counted."""
    cumulative_bytes: int
    """The same with them; 0 within another import of the package, which counts it."""


class ImportListener(Protocol):
    """Receives every import that crossed a tracked package's boundary."""

    def imported(self, measured: Import) -> None:
        """Take note of an import that succeeded."""


_being_filled: set[str] = set()
"""Names of deferred modules that the import system has begun to fill: it reads and sets their metadata itself."""


class DeferredModule(ModuleType):
    """A module that is imported when one of its attributes is first asked for.

    Where it cannot be imported, asking raises an `AttributeError` whose cause is the `ImportError`.
    """

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__name__", "__reduce_ex__"):
            return _plain_getattribute(self, name)
        if name in _METADATA and _plain_getattribute(self, "__name__") in _being_filled:
            return _plain_getattribute(self, name)
        try:
            real = _imported(self)
        except ImportError as error:
            # hasattr, getattr with a default and inspect take only this for an answer. Without `obj` a printed
            # traceback would look for similar names on this module, and try to import it once more.
            module = _plain_getattribute(self, "__name__")
            message = f"module {module!r}, imported on first use, cannot be imported: {error}"
            raise AttributeError(message, name=name, obj=None) from error
        return _plain_getattribute(self, name) if real is self else getattr(real, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _METADATA or _plain_getattribute(self, "__name__") not in _being_filled:
            real = _imported(self)
            if real is not self:
                setattr(real, name, value)
                return
        ModuleType.__setattr__(self, name, value)  # super() would look for a DeferredModule, which it no longer is

    def __delattr__(self, name: str) -> None:
        real = _imported(self)
        if real is self:
            ModuleType.__delattr__(self, name)
        else:
            delattr(real, name)

    def __dir__(self) -> list[str]:
        real = _imported(self)
        return list(ModuleType.__dir__(self)) if real is self else dir(real)

    def __reduce_ex__(self, protocol: object) -> tuple[object, tuple[str]]:
        return (import_module, (_plain_getattribute(self, "__name__"),))

    def __repr__(self) -> str:
        return f"<module {_plain_getattribute(self, '__name__')!r}, imported on first use>"


def _imported(deferred: DeferredModule) -> ModuleType:
    """Import what a deferred module stands for, once there is room for its package."""
    name: str = _plain_getattribute(deferred, "__name__")
    package = name.partition(".")[0]
    reserve = _reserves.get(deferred)
    if reserve is None or package in sys.modules:
        # In the thread that is importing it this returns at once; other threads wait for the module's import lock.
        return import_module(name)
    with reserve(package, 0):
        return import_module(name)


_reserves: WeakKeyDictionary[ModuleType, Reserve] = WeakKeyDictionary()


class _Local(threading.local):
    """What one thread is importing."""

    def __init__(self) -> None:
        self.stack: list[str] = []
        """Packages whose boundary is being measured, the innermost last."""
        self.inner_bytes = [0]
        """For each of them, and for the application, what others' boundaries within it added."""
        self.finding: set[str] = set()
        """Names for which the other finders are being asked."""


class TrackingFinder(MetaPathFinder):
    """Finds nothing itself: wraps the loaders of tracked packages' modules where a boundary is crossed.

    Args:
        tracks: whether a top-level name is tracked.
        listener: receives each import that was measured.
        reserve: called before a package is imported on first use, to reserve what it is known to take.
    """

    def __init__(
        self, tracks: Callable[[str], bool], listener: ImportListener, *, reserve: Reserve | None = None
    ) -> None:
        self._tracks = tracks
        self._listener = listener
        self._reserve = reserve
        self._deferred: dict[str, DeferredModule] = {}
        self._owners: dict[str, str] = {}
        self._local = _Local()

    def install(self) -> None:
        """Put this finder before all others, once."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def uninstall(self) -> None:
        """Take this finder away again."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def defer(self, name: str) -> ModuleType:
        """Return module `name` if it is loaded, else the object that it will be loaded into."""
        loaded = sys.modules.get(name)
        if loaded is not None:
            return loaded
        # setdefault is atomic: two threads get the same object.
        deferred = self._deferred.setdefault(name, DeferredModule(name))
        if self._reserve is not None:
            _reserves[deferred] = self._reserve
        return deferred

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders give, its loader wrapped; None where there is nothing to do."""
        top, stack = fullname.partition(".")[0], self._local.stack
        # The usual case first: sympy imports 500 modules of its own.
        if stack and stack[-1] == top and fullname not in self._deferred:
            return None
        if not self._tracks(top):
            if stack:
                self._owners.setdefault(top, stack[-1])
            return None
        ensure_own_process()
        # Another finder that asks all finders, as this one does, has come round to it.
        if fullname in self._local.finding:
            return None
        spec = self._found_by_others(fullname, path, target)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _BoundaryLoader(spec.loader, self, top)
        return spec

    def _found_by_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        finding = self._local.finding
        finding.add(fullname)
        try:
            for finder in sys.meta_path:
                if finder is not self and hasattr(finder, "find_spec"):
                    spec = finder.find_spec(fullname, path, target)
                    if spec is not None:
                        return spec
            return None
        finally:
            finding.discard(fullname)

    def owner(self, top: str) -> str:
        """Return the tracked package that a top-level module counts for; empty for the application.

        One that is not tracked counts for the package whose import first asked for it: its bytes do too.
        """
        return top if self._tracks(top) else self._owners.get(top, "")

    def deferred(self, fullname: str) -> DeferredModule | None:
        """Return the object waiting to become module `fullname`, if there is one."""
        return self._deferred.get(fullname)

    def filled(self, fullname: str) -> None:
        """Forget a deferred module that is loaded: deleted from `sys.modules`, it is made anew, as usual."""
        self._deferred.pop(fullname, None)

    def measured(self, package: str, *, root: bool, run: Callable[[], None]) -> None:
        """Run an import of a module of `package` and tell the listener what it took."""
        stack, inner = self._local.stack, self._local.inner_bytes
        importer = stack[-1] if stack else self._caller()
        nested, within = bool(stack) and importer == package, package in stack
        stack.append(package)
        inner.append(0)
        before, started = _held_bytes(), time.perf_counter()
        try:
            run()
        finally:
            added, seconds = _held_bytes() - before, time.perf_counter() - started
            stack.pop()
            own = added - inner.pop()
            # The enclosing boundary of the same package counts it as its own.
            inner[-1] += added - own if nested else added
        if not nested:
            self._listener.imported(Import(package, root, importer, seconds, own, 0 if within else added))

    def _caller(self) -> str:
        """Return the tracked package whose function imports, as libraries do that load their parts lazily; else ""."""
        frame = sys._getframe(1)  # noqa: SLF001 -- documented in the sys module
        while (top := str(frame.f_globals.get("__name__")).partition(".")[0]) in _IMPORTING and frame.f_back:
            frame = frame.f_back
        return top if top not in _IMPORTING and self._tracks(top) else ""


def _held_bytes() -> int:
    try:
        return anonymous_bytes()
    except OSError:  # no /proc: an import must not fail because it cannot be measured
        return 0


class _BoundaryLoader(Loader):
    """Stands for a module's loader until the module is executed, then is gone without a trace."""

    def __init__(self, real: Loader, finder: TrackingFinder, package: str) -> None:
        self._real = real
        self._finder = finder
        self._package = package

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created = self._real.create_module(spec)
        # An extension makes its own object; the deferred one then passes every access on to it.
        if created is not None:
            return created
        deferred = self._finder.deferred(spec.name)
        if deferred is not None:
            _being_filled.add(spec.name)
        return deferred

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        pristine = dict(vars(module)) if type(module) is DeferredModule else None
        try:
            self._finder.measured(
                self._package,
                root=module.__name__ == self._package,
                run=lambda: self._real.exec_module(module),
            )
        except BaseException:
            if pristine is not None:  # the next access tries again, on an empty module
                namespace = vars(module)
                namespace.clear()
                namespace.update(pristine)
                _being_filled.discard(module.__name__)
            raise
        # Only now: other threads must never see half a module. One that put another in its place passes on to that.
        if type(module) is DeferredModule:
            name = module.__name__
            if sys.modules.get(name) is module:
                object.__setattr__(module, "__class__", ModuleType)
                self._finder.filled(name)
            _being_filled.discard(name)
