"""Reading what workers publish: damaged, oversized or foreign files are refused, whoever wrote them.

Apart from `mempressure.state.records`, which writes them: a worker reads no state but at its start.
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
from mempressure.state.published_packages import ROW, Blocks, PublishedPackages
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
    """A state file is not what a worker of this version writes."""


def decode(data: bytes) -> WorkerState:
    """Return the state that `encode` wrote.

    Raises:
        StateError: the bytes are no state file, damaged, or hold a value that cannot be.
    """
    return _decoded(_parsed(data), data)


def _decoded(read: "_Read", data: bytes) -> WorkerState:
    """Return the state in a file with this catalog; `data` may end with the values."""
    measured = _WORKER.unpack_from(data, HEADER.size)
    packages = PublishedPackages(read.packages, data, start=HEADER.size + _WORKER.size, before=read.blocks)
    _check(measured)
    for place in packages.changed:  # the others were found to be possible when they came
        _check(packages.values(place))
    read.blocks = packages.blocks
    fields = read.worker.copy()
    fields.update(zip(WORKER_VALUES, measured, strict=True))
    return WorkerState(**fields, packages=packages)


def _check(values: tuple[float, ...]) -> None:
    # Where one is NaN, order says nothing, but the sum is NaN as well. To ask each takes four times as long.
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
    """Read a file; of its catalog nothing where that is known."""
    status = os.fstat(descriptor)
    if status.st_uid != owner or (status.st_mode & 0o170000) != 0o100000:
        raise StateError(f"not a regular file of uid {owner}")
    size = status.st_size
    if size > MAX_FILE_BYTES:
        raise StateError(f"{size} bytes are more than the {MAX_FILE_BYTES} allowed")
    known = _reads.of(path)
    if known is not None and known.size == size:
        data = os.pread(descriptor, known.end, 0)
        if len(data) == known.end and data.startswith(known.header):
            return _decoded(known, data)
    # Not as many as allowed: a buffer of 4 MiB for a file of 10 KB costs 30 us.
    data = os.pread(descriptor, size + 1, 0)
    read = _parsed(data)
    pid = read.worker["pid"]
    if path.rpartition("/")[2].partition(".")[0].partition("-")[0] != str(pid):
        raise StateError(f"speaks for worker {pid}; a worker's file has its own pid for a name")
    _reads.keep(path, read)
    return _decoded(read, data)


@dataclass(slots=True)
class _Read:
    """A file as it was read last: what its catalog says, not to be changed, and the numbers."""

    header: bytes
    """By which the catalog is known."""
    end: int
    """Where the values end and the catalog begins."""
    size: int
    worker: dict[str, Any]
    packages: list[dict[str, Any]]
    blocks: Blocks = ()
    """Of the packages' numbers; they were checked. None until then."""


class _Reads:
    """What was read last, by file: parsing and checking a catalog is 0.5 of the 0.6 ms that 50 packages cost."""

    MOST_BYTES = 8 << 20
    """Of the files whose reads are kept; some 300 bytes a package."""
    NEIGHBOURS = 8

    def __init__(self) -> None:
        self._kept: dict[str, _Read] = {}  # the oldest first
        self._bytes = 0
        self._lock = threading.Lock()

    def of(self, path: str) -> _Read | None:
        """Return the last read of a file, if it is kept."""
        return self._kept.get(path)

    def keep(self, path: str, read: _Read) -> None:
        """Keep the read of a file, and as much of the others' as there is room for; the oldest go first."""
        with self._lock:
            read.packages = self._alike(read.packages)
            if path in self._kept:
                self._forget(path)
            self._kept[path] = read
            self._bytes += read.size
            while self._bytes > self.MOST_BYTES:
                self._forget(next(iter(self._kept)))

    def _forget(self, path: str) -> None:
        self._bytes -= self._kept.pop(path).size

    def _alike(self, packages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the same packages of another worker, where one of the last has them: an app's workers are alike."""
        # Of the last only: to look through all of them took 20 s where one user published 2,400 that were not alike.
        last = islice(reversed(self._kept.values()), self.NEIGHBOURS)
        return next((kept.packages for kept in last if kept.packages == packages), packages)


_reads = _Reads()


def _parsed(data: bytes) -> _Read:
    """Return what the header and the catalog of a file say."""
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
    return _Read(data[: HEADER.size], end, len(data), worker, packages)


def _catalog(text: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what a catalog says of the worker, and of each package."""
    try:
        catalog = json.loads(text)
    except ValueError as error:
        raise StateError(f"state file: its catalog is no JSON: {error}") from error
    except RecursionError:  # a user may publish anything, a hundred thousand brackets too
        raise StateError("state file: its catalog is nested too deep") from None
    if not isinstance(catalog, dict):
        raise StateError("state file: its catalog is no object")
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
