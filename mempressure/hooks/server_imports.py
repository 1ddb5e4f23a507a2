"""Notice of the import of a server: its hooks are installed at the moment it has been imported.

A process that runs no server imports nothing more for it. A finder at the head of `sys.meta_path` looks up the name of
each import in a table of three.
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
        self.installed: set[str] = set()

    def watch(self) -> None:
        """Install what has been imported already, and wait for the rest."""
        for name in list(self._waiting):
            if name in sys.modules:
                self._install(name, sys.modules[name], self._waiting.pop(name))
        if self._waiting:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders give of a server's module; None for any other."""
        install = self._waiting.pop(fullname, None)
        if install is None:
            return None
        finders = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next((spec for finder in finders if (spec := finder.find_spec(fullname, path, target))), None)
        loader = None if spec is None else spec.loader
        if loader is None:
            return spec
        execute = loader.exec_module

        def execute_and_install(module: ModuleType) -> None:
            execute(module)
            self._install(fullname, module, install)

        loader.exec_module = execute_and_install  # type: ignore[method-assign]  # of this loader alone
        return spec

    def _install(self, name: str, module: ModuleType, install: Install) -> None:
        try:
            install(module)
        except Exception as error:  # noqa: BLE001 -- the application is not to suffer, whatever this is
            self._on_problem(name, error)
        else:
            self.installed.add(name)
