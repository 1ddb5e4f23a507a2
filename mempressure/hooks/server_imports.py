"""Notice of the import of a server: its hooks are installed at the moment it has been imported.

A process that runs no server imports nothing more for it. A finder at the head of `sys.meta_path` looks up the name of
each import in a table of three, and is gone when all three have been imported.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

Install = Callable[[ModuleType], None]
"""Installs the hooks of a server, given the module that was imported."""


class ServerImports:
    """A finder that finds nothing itself: the loaders that others find for the named modules call `install` afterwards.

    Args:
        installs: what to call for a module, by its full name.
        on_problem: called with the name and the exception where that fails; the import itself goes on.

    Attributes:
        installed: the names of the modules whose hooks are installed.
    """

    def __init__(self, installs: Mapping[str, Install], *, on_problem: Callable[[str, Exception], None]) -> None:
        self._waiting = dict(installs)
        self._on_problem = on_problem
        self._finding: set[str] = set()
        self.installed: set[str] = set()

    def watch(self) -> None:
        """Install what has been imported already, and wait for the rest."""
        for name in list(self._waiting):
            if name in sys.modules:
                self._install(name, sys.modules[name])
        if self._waiting:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders give of a server's module; None for any other."""
        # Another finder that asks all finders, as this one does, has come round to it.
        if fullname not in self._waiting or fullname in self._finding:
            return None
        self._finding.add(fullname)
        try:
            finders = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
            spec = next((spec for finder in finders if (spec := finder.find_spec(fullname, path, target))), None)
        finally:
            self._finding.discard(fullname)
        if spec is not None:
            self._follow(fullname, spec.loader)
        return spec

    def _follow(self, name: str, loader: object) -> None:
        """Have a loader install the hooks once it has executed the module; one only looked for is waited for still."""

        def execute_and_install(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            loader.exec_module(module)  # type: ignore[attr-defined]  # looked for below
            if name in self._waiting:
                self._install(name, module)

        try:
            if hasattr(loader, "exec_module"):
                vars(loader)["exec_module"] = execute_and_install
                return
        except TypeError:  # without attributes of its own; or a class, which loads other modules too
            pass
        self._forget(name)
        self._on_problem(name, TypeError(f"it is loaded by {loader!r}, which cannot be followed"))

    def _install(self, name: str, module: ModuleType) -> None:
        install = self._forget(name)
        try:
            install(module)
        except Exception as error:  # noqa: BLE001 -- the application is not to suffer, whatever this is
            self._on_problem(name, error)
        else:
            self.installed.add(name)

    def _forget(self, name: str) -> Install:
        install = self._waiting.pop(name)
        if not self._waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
        return install
