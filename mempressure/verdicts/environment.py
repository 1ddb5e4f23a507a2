"""The environment that a verdict depends on: versions of distributions and of Python, and the memory allocator.

A worker uses it at each look-up of a verdict, so it imports nothing else. `importlib.metadata` would cost 4 MB; the
names of the metadata directories have the same versions (Recording Installed Projects, packaging.python.org) for one
listing of each directory of `sys.path`, 0.6 ms in all.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import cast

from mempressure import __version__

UNVERSIONED = "files "
"""Prefix of the version of a package that no distribution provides: it is derived from its files instead."""

_SOURCES = (".py", ".so", ".pyd")


def python_version() -> str:
    """Return implementation, version and build flags, such as "cpython 3.13.1t"."""
    return f"{sys.implementation.name} {sys.version.split()[0]}{getattr(sys, 'abiflags', '')}"


def allocator() -> str:
    """Return the allocators in use: Python's, the C library's, and libraries preloaded before that.

    For example "pymalloc, glibc 2.36" or "malloc, musl, libjemalloc.so.2".
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
        path: the directories to search, in order; `sys.path` by default.
    """
    wanted, found = set(names), dict[str, str]()
    for folder in cast(Sequence[object], sys.path) if path is None else path:
        if not isinstance(folder, str):  # some put Path objects there
            continue
        try:
            entries = os.listdir(folder or ".")
        except OSError:  # a zip file, or a directory that does not exist
            continue
        for entry in entries:
            name, version = _name_and_version(entry)
            if name in wanted:
                found.setdefault(name, version)  # as for imports, the first one on the path counts
    return found


def normalised(name: str) -> str:
    """Return the normalised form of a distribution's name (PEP 503, with underscores)."""
    name = name.lower().replace("-", "_").replace(".", "_")
    while "__" in name:
        name = name.replace("__", "_")
    return name


def source_version(package: str) -> str:
    """Return a version of a package that changes with its files; empty where the package cannot be found.

    For example "files 12, 34567 bytes, 1763800000000000000": their number, their summed size, and the time of the
    newest in nanoseconds.
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
    """Return name and version from "pandas-3.1.1.dist-info" or "six-1.17.0-py3.11.egg-info"; empty for other names."""
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
