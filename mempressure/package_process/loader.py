"""The lazy loader inside a package process: runs what was declared, and manages nothing.

`get_lazy_loader` returns it there. The modules of isolated functions declare the same things again when they are
imported; the whole loader would cost each package process 3 MiB.
"""

import importlib
import sys

from mempressure.package_process.functions import FunctionInside, declare

TYPE_CHECKING = False  # typing's own would load typing

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class LoaderInside:
    """Offers what `LazyLoader` offers; whatever is not here is done by one of those."""

    def isolated(self, *names: str, **_options: "Any") -> "Callable[[Callable[..., Any]], FunctionInside]":
        """Declare a function that runs here, if one of these packages does; see `LazyLoader.isolated`."""
        declared_in = sys._getframe(1).f_globals.get("__name__")  # noqa: SLF001 - as collections.namedtuple does
        return inside(names, declared_in)

    def on_start(self, *_names: str) -> "Callable[[Callable[..., Any]], Callable[..., Any]]":
        """Remember a function that is run before anything is imported; see `LazyLoader.on_start`."""
        return remembered

    def resident(self, *function: "Callable[[], Any]", **options: "Any") -> "Any":
        """Declare an object that is loaded once here; see `LazyLoader.resident`."""
        from mempressure.package_process import residents  # most processes have none

        return residents.resident(*function, **options)

    def cache(self, *function: "Callable[..., Any]", **options: "Any") -> "Any":
        """Keep a function's results; see `LazyLoader.cache`."""
        from mempressure.package_process import residents  # most processes have none

        return residents.cache(*function, **options)

    def installed(self, name: str) -> bool:
        """Return whether module `name` could be imported; see `LazyLoader.installed`."""
        # Not an import statement: what lives in this folder needs nothing of what is built on it.
        found: bool = importlib.import_module("mempressure.packages.installed").is_installed(name)
        return found

    def on_pressure(self, _level: str) -> "Callable[[Callable[..., Any]], Callable[..., Any]]":
        """Leave a function as it is: it is for workers."""
        return lambda callback: callback

    def manage(self, _name: str, **_options: "Any") -> None:
        """Do nothing: the package is imported here, and goes with the process."""

    def track_imports(self) -> None:
        """Do nothing; see `manage`."""

    def start(self) -> None:
        """Do nothing: the control loop is the workers'."""

    def stop(self) -> None:
        """Do nothing; see `start`."""

    def __getattr__(self, name: str) -> "Any":
        # Not an import statement: what lives in this folder needs nothing of what is built on it.
        whole = importlib.import_module("mempressure.loader").get_lazy_loader()
        return getattr(whole, name)


def inside(names: tuple[str, ...], declared_in: str | None) -> "Callable[[Callable[..., Any]], FunctionInside]":
    """Return the decorator of an isolated function as it is inside a package process."""

    def decorate(function: "Callable[..., Any]") -> FunctionInside:
        module = function.__module__
        return FunctionInside(function, (module, function.__qualname__, declared_in or module), names)

    return decorate


def remembered(function: "Callable[..., Any]") -> "Callable[..., Any]":
    """Remember a function under its name, for the process to run it; return it as it is."""
    declare(function.__module__, function.__qualname__, function)
    return function


_loader = LoaderInside()


def get_lazy_loader() -> LoaderInside:
    """Return the loader of this package process."""
    return _loader
