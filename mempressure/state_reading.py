"""Reading what workers publish: damaged, oversized or foreign files are refused, whoever wrote them.

Apart from `mempressure.state`, which writes them: a worker reads no state but at its start.
"""

import errno
import json
import os
import sys
from array import array
from functools import lru_cache
from pathlib import Path
from typing import Any

from mempressure.errors import MempressureError
from mempressure.state import (
    HEADER,
    MAGIC,
    MAX_NAMES,
    PACKAGE_OPTIONS,
    PACKAGE_VALUES,
    UNKNOWN,
    WORKER_OPTIONS,
    WORKER_VALUES,
    PackageState,
    WorkerState,
    is_printable,
)

MAX_FILE_BYTES = 4 << 20
_LARGEST = 2**62


class StateError(MempressureError, ValueError):
    """A state file is not what a worker of this version writes."""


def decode(data: bytes) -> WorkerState:
    """Return the state that `encode` wrote.

    Raises:
        StateError: the bytes are no state file, damaged, or hold a value that cannot be.
    """
    try:
        return _decode(data)
    except RecursionError:  # a user may publish anything, a hundred thousand brackets too
        raise StateError("state file: its catalog is nested too deep") from None


def _decode(data: bytes) -> WorkerState:
    text, values = _split(data)
    # What seldom changes is parsed and checked once: 0.5 of the 0.6 ms that a worker with 50 packages costs.
    parsed = _cached_catalog if len(text) <= _MOST_CACHED_BYTES else _catalog
    worker_options, package_options = parsed(text)
    if len(values) != len(WORKER_VALUES) + len(package_options) * len(PACKAGE_VALUES):
        raise StateError(f"state file: {len(values)} values do not fit {len(package_options)} packages")
    # One pass in C finds what is not finite; the ranges follow from min and max.
    total = sum(values)
    if total - total != 0 or min(values) < UNKNOWN or max(values) > _LARGEST:
        raise StateError("state file: a value is not finite, negative or absurdly large")
    measured: dict[str, Any] = dict(zip(WORKER_VALUES, values, strict=False))
    state = WorkerState(**worker_options, **measured)
    numbers = iter(values[len(WORKER_VALUES) :])
    for options in package_options:
        row: dict[str, Any] = dict(zip(PACKAGE_VALUES, numbers, strict=False))
        state.packages.append(PackageState(**options, **row))
    return state


def load(path: Path, *, owner: int) -> WorkerState:
    """Read the state file at `path`.

    Raises:
        StateError: it is damaged, too large, or not a regular file of `owner`.
        OSError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link, a socket
            raise StateError(f"{path}: not a regular file of uid {owner}") from error
        raise
    try:
        status = os.fstat(descriptor)
        if status.st_uid != owner or (status.st_mode & 0o170000) != 0o100000:
            raise StateError(f"{path}: not a regular file of uid {owner}")
        if status.st_size > MAX_FILE_BYTES:
            raise StateError(f"{path}: {status.st_size} bytes are more than the {MAX_FILE_BYTES} allowed")
        data = os.read(descriptor, MAX_FILE_BYTES)
    finally:
        os.close(descriptor)
    try:
        worker = decode(data)
    except StateError as error:
        raise StateError(f"{path}: {error}") from error
    if path.stem.partition("-")[0] != str(worker.pid):
        raise StateError(f"{path}: speaks for worker {worker.pid}; a worker's file has its own pid for a name")
    return worker


def _split(data: bytes) -> tuple[bytes, "array[float]"]:
    if len(data) < HEADER.size:
        raise StateError("state file: too short")
    magic, catalog_length, count = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise StateError(f"state file: starts with {magic!r}, not {MAGIC!r}")
    end = HEADER.size + catalog_length
    if len(data) != end + 8 * count:
        raise StateError("state file: its length does not fit its header")
    values = array("d", data[end:])
    if sys.byteorder == "big":
        values.byteswap()
    return data[HEADER.size : end], values


def _catalog(text: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the options of the worker and of each of its packages; not to be changed, they are shared."""
    try:
        catalog = json.loads(text)
    except ValueError as error:
        raise StateError(f"state file: its catalog is no JSON: {error}") from error
    if not isinstance(catalog, dict):
        raise StateError("state file: its catalog is no object")
    packages = catalog.pop("packages", None)
    if not isinstance(packages, list):
        raise StateError("state file: its catalog has no list of packages")
    return _options(catalog, WORKER_OPTIONS), [_options(options, PACKAGE_OPTIONS) for options in packages]


# For the workers of one machine; a catalog has some 100 bytes a package.
_MOST_CACHED_BYTES = 64 << 10
_cached_catalog = lru_cache(maxsize=256)(_catalog)


def _options(given: Any, expected: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(given, dict) or given.keys() != expected.keys():
        raise StateError("state file: its catalog has other keys than this version writes")
    for name, kind in expected.items():
        value = given[name]
        if type(value) is not kind and not (kind is float and type(value) is int) and not _is_collection(value, kind):
            raise StateError(f"state file: {name}={value!r:.60} is no {kind.__name__}")
        if not _can_be(name, kind, value):
            raise StateError(f"state file: {name}={value!r:.60} cannot be")
    return given


def _is_collection(value: Any, kind: Any) -> bool:
    return (kind == list[str] and type(value) is list) or (kind == dict[str, str] and type(value) is dict)


def _can_be(name: str, kind: Any, value: Any) -> bool:
    if kind is str:
        return is_printable(value)
    if kind == list[str]:
        return len(value) <= MAX_NAMES and all(is_printable(text) for text in value)
    if kind == dict[str, str]:
        return len(value) <= MAX_NAMES and all(is_printable(text) for pair in value.items() for text in pair)
    low = UNKNOWN if kind is float else -_LARGEST if name == "priority" else 0
    return bool(low <= value <= _LARGEST)  # false for NaN
