"""Reading what workers publish: damaged, oversized or foreign files are refused, whoever wrote them.

Apart from `mempressure.state`, which writes them: a worker reads no state but at its start.
"""

import errno
import json
import os
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mempressure.errors import MempressureError
from mempressure.published_packages import ROW, PublishedPackages
from mempressure.state import (
    HEADER,
    MAGIC,
    MAX_NAMES,
    PACKAGE_OPTIONS,
    UNKNOWN,
    WORKER_OPTIONS,
    WORKER_VALUES,
    WorkerState,
    is_printable,
)

MAX_FILE_BYTES = 4 << 20
_WORKER = struct.Struct(f"<{len(WORKER_VALUES)}d")
_LARGEST = 2**62


class StateError(MempressureError, ValueError):
    """A state file is not what a worker of this version writes."""


def decode(data: bytes, *, path: str = "") -> WorkerState:
    """Return the state that `encode` wrote.

    Args:
        data: a state file.
        path: where it was read, for what seldom changes to be parsed only when it changes.

    Raises:
        StateError: the bytes are no state file, damaged, or hold a value that cannot be.
    """
    try:
        return _decode(data, path)
    except RecursionError:  # a user may publish anything, a hundred thousand brackets too
        raise StateError("state file: its catalog is nested too deep") from None


def _decode(data: bytes, path: str) -> WorkerState:
    end = _end_of_catalog(data)
    read = _reads.of(data, end, path)
    if len(data) - end != _WORKER.size + ROW.size * len(read.packages):
        raise StateError(f"state file: {(len(data) - end) // 8} values do not fit {len(read.packages)} packages")
    measured = _WORKER.unpack_from(data, end)
    packages = PublishedPackages(read.packages, data[end + _WORKER.size :], before=read.numbers)
    _check(measured)
    for place in packages.changed:  # the others were found to be possible when they came
        _check(packages.values(place))
    read.numbers = packages.numbers
    fields = read.worker.copy()
    fields.update(zip(WORKER_VALUES, measured, strict=True))
    return WorkerState(**fields, packages=packages)


def _check(values: Iterable[float]) -> None:
    if not all(UNKNOWN <= value <= _LARGEST for value in values):  # false for NaN
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
        status = os.fstat(descriptor)
        if status.st_uid != owner or (status.st_mode & 0o170000) != 0o100000:
            raise StateError(f"{path}: not a regular file of uid {owner}")
        if status.st_size > MAX_FILE_BYTES:
            raise StateError(f"{path}: {status.st_size} bytes are more than the {MAX_FILE_BYTES} allowed")
        # Not as many as allowed: a buffer of 4 MiB for a file of 10 KB costs 30 us.
        data = os.read(descriptor, status.st_size + 1)
    finally:
        os.close(descriptor)
    try:
        worker = decode(data, path=str(path))
    except StateError as error:
        raise StateError(f"{path}: {error}") from error
    if str(path).rpartition("/")[2].partition(".")[0].partition("-")[0] != str(worker.pid):
        raise StateError(f"{path}: speaks for worker {worker.pid}; a worker's file has its own pid for a name")
    return worker


def _end_of_catalog(data: bytes) -> int:
    """Return where the values of a file begin."""
    if len(data) < HEADER.size:
        raise StateError("state file: too short")
    magic, catalog_length, count = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise StateError(f"state file: starts with {magic!r}, not {MAGIC!r}")
    end: int = HEADER.size + catalog_length
    if len(data) != end + 8 * count:
        raise StateError("state file: its length does not fit its header")
    return end


@dataclass(slots=True)
class _Read:
    """A file as it was read last: the catalog's bytes and what they say, not to be changed, and the numbers."""

    text: bytes
    worker: dict[str, Any]
    packages: list[dict[str, Any]]
    numbers: bytes = b""
    """Of the packages; they were checked. Empty until then."""


class _Reads:
    """What was read last, by file: parsing and checking a catalog is 0.5 of the 0.6 ms that 50 packages cost."""

    MOST_BYTES = 4 << 20
    """Of catalogs that are kept; some 150 bytes a package, and as much again for its numbers."""

    def __init__(self) -> None:
        self._kept: dict[str, _Read] = {}
        self._lock = threading.Lock()

    def of(self, data: bytes, end: int, path: str) -> _Read:
        """Return the last read of a file with this catalog, which ends there; one without numbers if there was none."""
        known = self._kept.get(path) if path else None
        # In place: to copy a catalog takes longer than to compare it.
        if known and len(known.text) == end - HEADER.size and data.startswith(known.text, HEADER.size):
            return known
        read = _parsed(data[HEADER.size : end])
        if path:
            with self._lock:
                read.packages = self._alike(read.packages)
                self._keep(path, read)
        return read

    def _alike(self, packages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the same packages of another worker, where one has them: an app's workers are alike."""
        return next((kept.packages for kept in self._kept.values() if kept.packages == packages), packages)

    def _keep(self, path: str, read: _Read) -> None:
        self._kept.pop(path, None)
        self._kept[path] = read
        size = sum(len(kept.text) for kept in self._kept.values())
        for oldest in list(self._kept):
            if size <= self.MOST_BYTES:
                break
            size -= len(self._kept.pop(oldest).text)


_reads = _Reads()


def _parsed(text: bytes) -> _Read:
    try:
        catalog = json.loads(text)
    except ValueError as error:
        raise StateError(f"state file: its catalog is no JSON: {error}") from error
    if not isinstance(catalog, dict):
        raise StateError("state file: its catalog is no object")
    packages = catalog.pop("packages", None)
    if not isinstance(packages, list):
        raise StateError("state file: its catalog has no list of packages")
    return _Read(text, _options(catalog, WORKER_OPTIONS), [_options(options, PACKAGE_OPTIONS) for options in packages])


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
