"""Reads and checks a state file: damaged, oversized or foreign files are refused.

Separate from `mempressure.state.records`, which encodes them: a worker reads state files only when it starts.
"""

import errno
import json
import math
import os
import struct
import threading
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mempressure.errors import MempressureError
from mempressure.measure.reading import UNKNOWN
from mempressure.state.packages_reading import ROW, Blocks, PackagesReading
from mempressure.state.records import (
    HEADER,
    MAGIC,
    MAX_NAMES,
    PACKAGE_OPTIONS,
    WORKER_OPTIONS,
    WORKER_VALUES,
    WorkerState,
    is_printable,
)

MAX_FILE_BYTES = 4 << 20
_WORKER = struct.Struct(f"<{len(WORKER_VALUES)}d")
_LARGEST = 2**62


class StateError(MempressureError, ValueError):
    """A state file differs from what a worker of this version writes; the message says in what."""


def decode(data: bytes) -> WorkerState:
    """Return the state that `encode` wrote.

    Raises:
        StateError: the bytes are no state file, damaged, or have an impossible value.
    """
    return _decoded(_parsed(data), data)


def _decoded(cached: "_CachedFile", data: bytes) -> WorkerState:
    """Return the state in a file with this catalog; of `data` only the header and the values are used."""
    measured = _WORKER.unpack_from(data, HEADER.size)
    packages = PackagesReading(cached.packages, data, start=HEADER.size + _WORKER.size, before=cached.blocks)
    _check(measured)
    for place in packages.changed:  # the others were checked when they were first read
        _check(packages.values(place))
    cached.blocks = packages.blocks
    fields = cached.worker.copy()
    fields.update(zip(WORKER_VALUES, measured, strict=True))
    return WorkerState(**fields, packages=packages)


def _check(values: tuple[float, ...]) -> None:
    # Comparisons say nothing of NaN, but make the sum NaN. Checking each value takes four times as long.
    if min(values) < UNKNOWN or max(values) > _LARGEST or math.isnan(sum(values)):
        raise StateError("state file: a value is not finite, negative or absurdly large")


def load(path: Path | str, *, owner: int) -> WorkerState:
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
        return _read(descriptor, str(path), owner)
    except StateError as error:
        raise StateError(f"{path}: {error}") from error
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: str, owner: int) -> WorkerState:
    """Read a file; its catalog only where that changed."""
    status = os.fstat(descriptor)
    if status.st_uid != owner or (status.st_mode & 0o170000) != 0o100000:
        raise StateError(f"not a regular file of uid {owner}")
    size = status.st_size
    if size > MAX_FILE_BYTES:
        raise StateError(f"{size} bytes are more than the {MAX_FILE_BYTES} allowed")
    known = _cache.get(path)
    if known is not None and known.size == size:
        data = os.pread(descriptor, known.end, 0)
        if len(data) == known.end and data.startswith(known.header):
            return _decoded(known, data)
    # Not `MAX_FILE_BYTES`: a buffer of 4 MiB for a file of 10 KB costs 30 us.
    data = os.pread(descriptor, size + 1, 0)
    parsed = _parsed(data)
    pid = parsed.worker["pid"]
    if path.rpartition("/")[2].partition(".")[0].partition("-")[0] != str(pid):
        raise StateError(f"it is the state of worker {pid}; the name of a worker's file begins with its own pid")
    _cache.put(path, parsed)
    return _decoded(parsed, data)


@dataclass(slots=True)
class _CachedFile:
    """What was read from a file last: its parsed catalog, which must not be changed, and the packages' numbers."""

    header: bytes
    """Identifies the catalog."""
    end: int
    """The offset at which the values end and the catalog begins."""
    size: int
    worker: dict[str, Any]
    packages: list[dict[str, Any]]
    blocks: Blocks = ()
    """The packages' numbers once they were checked, before that empty."""


class _Cache:
    """What was read last, by file: parsing and checking the catalog is 0.5 of the 0.6 ms that 50 packages cost."""

    MOST_BYTES = 8 << 20
    """Summed size of the cached files; some 300 bytes a package."""
    COMPARED_FILES = 8

    def __init__(self) -> None:
        self._files: dict[str, _CachedFile] = {}  # the oldest first
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, path: str) -> _CachedFile | None:
        """Return what was read from a file last, None where it is not cached."""
        return self._files.get(path)

    def put(self, path: str, file: _CachedFile) -> None:
        """Cache what was read from a file; the oldest others are dropped as far as needed."""
        with self._lock:
            file.packages = self._shared(file.packages)
            if path in self._files:
                self._drop(path)
            self._files[path] = file
            self._bytes += file.size
            while self._bytes > self.MOST_BYTES:
                self._drop(next(iter(self._files)))

    def _drop(self, path: str) -> None:
        self._bytes -= self._files.pop(path).size

    def _shared(self, packages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the equal list of another worker where one of the last files has it: an app's workers are alike."""
        # Of the last files only: comparing with all took 20 s where one user published 2,400 different ones.
        last = islice(reversed(self._files.values()), self.COMPARED_FILES)
        return next((file.packages for file in last if file.packages == packages), packages)


_cache = _Cache()


def _parsed(data: bytes) -> _CachedFile:
    """Return the header and the catalog of a file."""
    if len(data) < HEADER.size:
        raise StateError("state file: too short")
    magic, count, length, _ = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise StateError(f"state file: starts with {magic!r}, not {MAGIC!r}")
    end = HEADER.size + 8 * count
    if len(data) != end + length:
        raise StateError("state file: its length does not fit its header")
    worker, packages = _catalog(data[end:])
    if 8 * count != _WORKER.size + ROW.size * len(packages):
        raise StateError(f"state file: {count} values do not fit {len(packages)} packages")
    return _CachedFile(data[: HEADER.size], end, len(data), worker, packages)


def _catalog(text: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the options of the worker, and those of each package."""
    try:
        catalog = json.loads(text)
    except ValueError as error:
        raise StateError(f"state file: its catalog is not JSON: {error}") from error
    except RecursionError:  # such as a hundred thousand brackets: any user may publish anything
        raise StateError("state file: its catalog is nested too deep") from None
    if not isinstance(catalog, dict):
        raise StateError("state file: its catalog is not an object")
    packages = catalog.pop("packages", None)
    if not isinstance(packages, list):
        raise StateError("state file: its catalog has no list of packages")
    options = _options(catalog, WORKER_OPTIONS), [_options(each, PACKAGE_OPTIONS) for each in packages]
    if len({each["name"] for each in packages}) < len(packages):
        raise StateError("state file: its catalog names a package twice")
    return options


def _options(given: Any, expected: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(given, dict) or given.keys() != expected.keys():
        raise StateError("state file: its catalog has other keys than this version writes")
    for name, kind in expected.items():
        value = given[name]
        if type(value) is not kind and not (kind is float and type(value) is int) and not _is_collection(value, kind):
            raise StateError(f"state file: {name}={value!r:.60} is not of type {kind.__name__}")
        if not _is_possible(name, kind, value):
            raise StateError(f"state file: {name}={value!r:.60} is not allowed")
    return given


def _is_collection(value: Any, kind: Any) -> bool:
    return (kind == list[str] and type(value) is list) or (kind == dict[str, str] and type(value) is dict)


def _is_possible(name: str, kind: Any, value: Any) -> bool:
    if kind is str:
        return is_printable(value)
    if kind == list[str]:
        return len(value) <= MAX_NAMES and all(is_printable(text) for text in value)
    if kind == dict[str, str]:
        return len(value) <= MAX_NAMES and all(is_printable(text) for pair in value.items() for text in pair)
    low = UNKNOWN if kind is float else -_LARGEST if name == "priority" else 0
    return bool(low <= value <= _LARGEST)  # false for NaN
