"""What is installed here, as far as a verdict depends on it: distributions, Python, the allocator.

A worker asks at a verdict's look-up, so nothing here imports anything. `importlib.metadata` would cost 4 MB; the
names of the metadata directories say the same (Recording Installed Projects, packaging.python.org) for one listing of
each directory of `sys.path`, 0.6 ms in all.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import cast

from mempressure import __version__

UNVERSIONED = "files "
"""How the version of a package that no distribution provides begins: it is told by its files instead."""

_SOURCES = (".py", ".so", ".pyd")


def python_version() -> str:
    """Return implementation, version and build flags, such as "cpython 3.13.1t"."""
    return f"{sys.implementation.name} {sys.version.split()[0]}{getattr(sys, 'abiflags', '')}"


def allocator() -> str:
    """Return what hands out memory here: Python's allocator, the C library and what is preloaded before it.

    Such as "pymalloc, glibc 2.36" or "malloc, musl, libjemalloc.so.2".
    """
    libraries = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    return ", ".join([_python_allocator(), _c_library(), *sorted(os.path.basename(library) for library in libraries)])


def mempressure_version() -> str:
    """Return the version of this library."""
    return __version__


def distribution_versions(names: Iterable[str], *, path: Sequence[object] | None = None) -> dict[str, str]:
    """Return the installed version of each distribution of `names` (normalised) that is installed.

    Args:
        names: as `normalised` returns them.
        path: where to look, in order; `sys.path` by default.
    """
    wanted, found = set(names), dict[str, str]()
    for folder in cast(Sequence[object], sys.path) if path is None else path:
        if not isinstance(folder, str):  # some put Path objects there
            continue
        try:
            entries = os.listdir(folder or ".")
        except OSError:  # a zip file, or a directory that is not there
            continue
        for entry in entries:
            name, version = _name_and_version(entry)
            if name in wanted:
                found.setdefault(name, version)  # as for imports, the first one on the path counts
    return found


def normalised(name: str) -> str:
    """Return a distribution's name such that all its spellings are one (PEP 503, with underscores)."""
    name = name.lower().replace("-", "_").replace(".", "_")
    while "__" in name:
        name = name.replace("__", "_")
    return name


def source_version(package: str) -> str:
    """Return what tells one state of a package's files from another; empty where the package cannot be found.

    Such as "files 12, 34567 bytes, 1763800000000000000": how many, how large together, and the newest one's time in ns.
    """
    count, size, newest = 0, 0, 0
    for file in _source_files(package):
        try:
            status = os.stat(file)
        except OSError:  # removed meanwhile
            continue
        count, size, newest = count + 1, size + status.st_size, max(newest, status.st_mtime_ns)
    return f"{UNVERSIONED}{count}, {size} bytes, {newest}" if count else ""


def _source_files(package: str) -> Iterable[str]:
    for finder in list(sys.meta_path):
        find_spec = getattr(finder, "find_spec", None)
        spec = None if find_spec is None else find_spec(package, None)
        if spec is None:
            continue
        for folder in spec.submodule_search_locations or ():
            for where, folders, files in os.walk(folder):
                folders[:] = [name for name in folders if name != "__pycache__"]
                yield from (os.path.join(where, name) for name in files if name.endswith(_SOURCES))
        if spec.submodule_search_locations is None and spec.origin is not None:
            yield spec.origin
        return


def _name_and_version(entry: str) -> tuple[str, str]:
    """Return what "pandas-3.1.1.dist-info" or "six-1.17.0-py3.11.egg-info" says; two empty texts for the rest."""
    stem, dot, kind = entry.rpartition(".")
    if not dot or kind not in ("dist-info", "egg-info"):
        return "", ""
    if kind == "egg-info":
        stem = stem.partition("-py")[0]
    name, _, version = stem.rpartition("-")
    return normalised(name), version


def _python_allocator() -> str:
    if not sys.flags.ignore_environment and (chosen := os.environ.get("PYTHONMALLOC")):
        return chosen
    return "debug" if sys.flags.dev_mode else "pymalloc"


def _c_library() -> str:
    if "musl" in getattr(sys.implementation, "_multiarch", ""):
        return "musl"
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "unknown C library"
    except (AttributeError, ValueError, OSError):  # not glibc
        return "unknown C library"
