"""Whether a package is installed, found out without importing it, and the refusal of one that is not."""

import sys
from collections.abc import Iterable

from mempressure.errors import ConfigurationError, MempressureError


def is_installed(name: str) -> bool:
    """Return whether an import of module `name` would find it, without importing anything.

    Of a submodule, such as google.cloud.storage, each parent is looked for first, where it says that its modules are;
    a package that makes submodules of its own when it is imported has none of them before.

    Raises:
        MempressureError: a finder of the import system failed, so that it cannot be told.
    """
    if name in sys.modules:
        return sys.modules[name] is not None  # which blocks its import
    package, _, rest = name.partition(".")
    found, path = _package(package)
    for part in rest.split(".") if rest else ():
        if not found or path is None:
            return False
        package = f"{package}.{part}"
        found, path = _submodule(package, path)
    return found


def require_installed(name: str) -> None:
    """Refuse a declaration of module `name` whose package is not installed.

    Raises:
        ConfigurationError: it is not; the message says how to make it optional.
        MempressureError: as of `is_installed`.
    """
    package = name.partition(".")[0]
    if not is_installed(package):
        raise ConfigurationError(
            f"package {package!r} is not installed for {sys.executable or 'this interpreter'}; install it, correct the "
            f"name, or declare it only if loader.installed({package!r})"
        )


_Place = tuple[bool, list[str] | None]
"""Whether a module is there, and the directories of its own modules; None where it is no package."""


def _package(name: str) -> _Place:
    if name in sys.modules:
        module = sys.modules[name]
        return module is not None, _listed(getattr(module, "__path__", None))
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            spec = None if find is None else find(name, None, None)
        except ImportError:  # what an import would raise, too
            return False, None
        except Exception as error:
            raise MempressureError(
                f"whether {name!r} is installed cannot be told: {finder!r:.80} of sys.meta_path failed: {error!r}"
            ) from error
        if spec is not None:
            return True, _listed(spec.submodule_search_locations)
    return False, None


def _submodule(name: str, path: list[str]) -> _Place:
    # Not by sys.meta_path: a namespace package within another is found there only once that is imported.
    from pkgutil import get_importer  # 0.1 MB that most need not pay

    portions: list[str] = []
    for directory in path:
        finder = get_importer(directory)
        spec = None if finder is None else finder.find_spec(name)
        if spec is not None and spec.loader is not None:
            return True, _listed(spec.submodule_search_locations)
        if spec is not None:
            portions += spec.submodule_search_locations or ()
    return bool(portions), portions or None


def _listed(path: Iterable[str] | None) -> list[str] | None:
    return None if path is None else list(path)
