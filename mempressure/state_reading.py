"""Reading what workers publish: damaged, oversized or foreign files are refused, whoever wrote them.

Apart from `mempressure.state`, which writes them: a worker reads no state but at its start.
"""

import errno
import json
import os
import struct
import sys
import threading
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

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
ROW = struct.Struct(f"<{len(PACKAGE_VALUES)}d")
"""One package's numbers, `PACKAGE_VALUES`, as they stand in a file."""
_BLOCK = 8
"""Rows that are compared together: most have not changed."""
_LARGEST = 2**62
_UNKNOWN_BYTES = struct.pack("<d", UNKNOWN)
_PLAUSIBLE = bytes([*range(0x43), _UNKNOWN_BYTES[-1]])
"""The last bytes of doubles from 0 to 2**49, and of `UNKNOWN`: sign and most of the exponent."""


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


class PublishedPackages(Sequence[PackageState]):
    """The packages of a worker as it published them: names and numbers apart, put together when one is asked for.

    A scrape looks at what changed only: putting 10,000 packages together takes 40 ms, finding those that changed 0.5.
    Whoever looks at them again and again, as the control loop does in each turn, pays for that once.

    Args:
        options: of each package, as the catalog has them; shared between reads of one catalog, so not to be changed.
        numbers: of all of them, a `ROW` each.
    """

    __slots__ = ("_whole", "numbers", "options")

    def __init__(self, options: Sequence[dict[str, Any]], numbers: bytes) -> None:
        self.options = options
        self.numbers = numbers
        self._whole: list[PackageState] | None = None

    def __len__(self) -> int:
        return len(self.options)

    @overload
    def __getitem__(self, index: int) -> PackageState: ...
    @overload
    def __getitem__(self, index: slice) -> list[PackageState]: ...
    def __getitem__(self, index: int | slice) -> PackageState | list[PackageState]:
        return self._put_together()[index]

    def __iter__(self) -> Iterator[PackageState]:
        return iter(self._put_together())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # equal by content, as the lists that writers have

    def __repr__(self) -> str:
        return repr(list(self))

    def values(self, place: int) -> tuple[float, ...]:
        """Return the numbers of one package, `PACKAGE_VALUES`."""
        return ROW.unpack_from(self.numbers, place * ROW.size)

    def changed_since(self, before: "PublishedPackages") -> Iterator[int]:
        """Yield the places of the packages whose numbers are others than in an earlier read of as many packages."""
        now, then, size = self.numbers, before.numbers, ROW.size
        for block in range(0, len(now), _BLOCK * size):
            end = block + _BLOCK * size
            if now[block:end] != then[block:end]:
                for start in range(block, min(end, len(now)), size):
                    if now[start : start + size] != then[start : start + size]:
                        yield start // size

    def _put_together(self) -> list[PackageState]:
        if self._whole is None:
            named: Iterator[dict[str, Any]] = (
                dict(zip(PACKAGE_VALUES, values, strict=True)) for values in ROW.iter_unpack(self.numbers)
            )
            self._whole = [PackageState(**each, **values) for each, values in zip(self.options, named, strict=True)]
        return self._whole


def _decode(data: bytes, path: str) -> WorkerState:
    text, numbers = _split(data)
    worker_options, package_options = _catalogs.parsed(text, path)
    start = 8 * len(WORKER_VALUES)
    if len(numbers) != start + ROW.size * len(package_options):
        raise StateError(f"state file: {len(numbers) // 8} values do not fit {len(package_options)} packages")
    _check_numbers(numbers)
    measured: dict[str, Any] = dict(zip(WORKER_VALUES, _doubles(numbers[:start]), strict=True))
    return WorkerState(**worker_options, **measured, packages=PublishedPackages(package_options, numbers[start:]))


def _check_numbers(numbers: bytes) -> None:
    # The last bytes alone tell that nothing is wrong, in a fiftieth of the time that looking at each number takes, that
    # what is negative is -1, too, but for its last 48 bits: -1.06 passes, and is as unknown as -1 to whoever adds up.
    last = numbers[7::8]
    negative = last.count(_UNKNOWN_BYTES[-1])
    if not last.translate(None, _PLAUSIBLE) and negative == numbers.count(_UNKNOWN_BYTES[-2:]):
        return
    if not all(UNKNOWN <= value <= _LARGEST for value in _doubles(numbers)):  # false for NaN
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
    if os.path.basename(path).partition(".")[0].partition("-")[0] != str(worker.pid):
        raise StateError(f"{path}: speaks for worker {worker.pid}; a worker's file has its own pid for a name")
    return worker


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return the catalog and the numbers of a file."""
    if len(data) < HEADER.size:
        raise StateError("state file: too short")
    magic, catalog_length, count = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise StateError(f"state file: starts with {magic!r}, not {MAGIC!r}")
    end = HEADER.size + catalog_length
    if len(data) != end + 8 * count:
        raise StateError("state file: its length does not fit its header")
    return data[HEADER.size : end], data[end:]


def _doubles(data: bytes) -> "array[float]":
    values = array("d", data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _catalog(text: bytes) -> "_Catalog":
    """Return the options of the worker and of each of its packages."""
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


_Catalog = tuple[dict[str, Any], list[dict[str, Any]]]


class _Catalogs:
    """The catalogs read last, by file: parsing and checking one is 0.5 of the 0.6 ms that 50 packages cost."""

    MOST_BYTES = 4 << 20
    """Of catalogs that are kept; some 150 bytes a package."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, _Catalog]] = {}
        self._lock = threading.Lock()

    def parsed(self, text: bytes, path: str) -> _Catalog:
        """Return what a catalog says; not to be changed, it is shared."""
        known = self._kept.get(path) if path else None
        if known and known[0] == text:
            return known[1]
        worker, packages = _catalog(text)
        if path:
            with self._lock:
                packages = self._alike(packages)
                self._keep(path, text, (worker, packages))
        return worker, packages

    def _alike(self, packages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the same packages of another worker, where one has them: an app's workers are alike."""
        return next((kept for _, (_, kept) in self._kept.values() if kept == packages), packages)

    def _keep(self, path: str, text: bytes, catalog: _Catalog) -> None:
        self._kept.pop(path, None)
        self._kept[path] = (text, catalog)
        size = sum(len(kept) for kept, _ in self._kept.values())
        for oldest in list(self._kept):
            if size <= self.MOST_BYTES:
                break
            size -= len(self._kept.pop(oldest)[0])


_catalogs = _Catalogs()


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
