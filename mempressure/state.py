"""The state that a worker publishes: one small file a worker, replaced whole at each tick.

Whoever reads never waits for a worker, and a file that is there is complete. A file is

    8 bytes   magic "MPSTATE1"
    u32 u32   length of the catalog in bytes, number of values
    catalog   JSON: what seldom changes (names, options); readers cache it by its bytes
    values    little-endian doubles: first `WORKER_VALUES`, then `PACKAGE_VALUES` for each package of the catalog

Splitting names from numbers keeps a scrape cheap: 400 packages' numbers decode in 20 us, as JSON they take 800.
"""

import errno
import os
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from mempressure.errors import MempressureError

MECHANISMS = ("trim", "stop", "evict", "recycle")
"""How memory is given back, mildest first."""

UNKNOWN = -1.0
"""Stands for a number that is not known: a package never used, a cgroup without a limit."""

CLOCK_SET_BACK_SECONDS = 10.0
"""A time that lies further in the future than this was told before the clock was set back."""

MAX_FILE_BYTES = 4 << 20
MAX_NAME_LENGTH = 200
MAX_NAMES = 1000
"""Entries of a list or mapping of a catalog at most."""
_HEADER = struct.Struct("<8sII")
_MAGIC = b"MPSTATE1"
_LARGEST = 2**62
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""As the kernel names it everywhere (PROC_PID_INIT_INO)."""


def least_mild(mechanisms: Iterable[str]) -> str:
    """Return the least mild of the mechanisms given, whatever else is among them; empty where there is none."""
    return max((name for name in mechanisms if name in MECHANISMS), key=MECHANISMS.index, default="")


class StateError(MempressureError, ValueError):
    """A state file is not what a worker of this version writes."""


@dataclass(slots=True, kw_only=True)
class PackageState:
    """One tracked package in one worker."""

    name: str
    mechanism: str
    """What unloads it: stop (isolated), evict (opted in) or recycle (everything else)."""
    source: str
    """Of `memory_bytes`: process (measured now) or import (measured when it was imported)."""
    timeout: float
    priority: int = 0
    keep_loaded: bool = False
    imports: list[str] = field(default_factory=list)
    """The other tracked packages that it is known to import (see `mempressure.attribution`)."""
    verdict: str = ""
    """The mildest mechanism that works by its verdict (see `mempressure.verdict`); empty where that is not known."""
    evict_refused: str = ""
    """Why it is not evicted though it was opted in; empty where it may be, or was not opted in."""

    loaded: float = 0.0
    active_calls: float = 0.0
    memory_bytes: float = 0.0
    """Its own: what imports of other tracked packages added is theirs."""
    cumulative_bytes: float = UNKNOWN
    """What importing it added, the tracked packages that this loaded included."""
    freed_bytes: float = UNKNOWN
    """What unloading it alone would free: its own and that of the packages only it leads to."""
    growth: float = UNKNOWN
    """Bytes per second by which its own process grows, a robust slope; 0 for one that shrinks."""
    last_used: float = UNKNOWN
    uses: float = 0.0
    """Calls of an isolated package; for others the ticks, and `using` blocks, that saw a use."""
    loads: float = 0.0
    refaults: float = 0.0
    refault_level: float = 0.0
    """Backoff level at the last refault (see `mempressure.backoff`)."""
    last_refault: float = UNKNOWN
    refault_delay: float = 0.0
    """Seconds between the last refault and the unloading before it."""
    load_seconds: float = 0.0
    unloads: float = 0.0
    reclaimed_bytes: float = 0.0


@dataclass(slots=True, kw_only=True)
class WorkerState:
    """One worker process and its packages. Sizes in bytes, times in Unix seconds, `UNKNOWN` where not known."""

    app: str
    pid: int
    start_ticks: int
    pid_namespace: str
    """As `/proc/self/ns/pid` names it: a reader in another one cannot look the pid up."""
    started: float
    supervisor: str = ""
    """What replaces this worker when it ends: gunicorn, uvicorn, celery, or nothing."""
    supervisor_pid: int = 0
    serving: bool = True
    """False while the worker boots and once it was told to end."""
    trim_refused: str = ""
    """Why trimming this worker would cost more than it gives; empty where it may be trimmed."""
    recycle_refused: str = ""
    """Why this worker must not be recycled; empty where it may be."""
    budget_bytes: int = 0
    unsupported: dict[str, str] = field(default_factory=dict)
    """What the self-check turned off here: a feature's name and the reason (see `mempressure.features`)."""

    sampled: float = 0.0
    proportional_bytes: float = 0.0
    private_bytes: float = 0.0
    baseline_bytes: float = UNKNOWN
    """Its private memory when it began to serve: what a fresh worker takes."""
    hosts_bytes: float = 0.0
    """Proportional memory of all its package hosts."""
    supervisor_bytes: float = 0.0
    """Proportional memory of its supervisor; every worker of one supervisor reports the same process."""
    cgroup_limit_bytes: float = UNKNOWN
    cgroup_working_set_bytes: float = UNKNOWN
    cgroup_waiting_seconds: float = UNKNOWN
    cgroup_stalled_seconds: float = UNKNOWN
    callback_failures: float = 0.0
    """Times that an `on_pressure` callback failed or took too long, since the worker started."""

    packages: list[PackageState] = field(default_factory=list)


PACKAGE_VALUES = (
    "loaded",
    "active_calls",
    "memory_bytes",
    "cumulative_bytes",
    "freed_bytes",
    "growth",
    "last_used",
    "uses",
    "loads",
    "refaults",
    "refault_level",
    "last_refault",
    "refault_delay",
    "load_seconds",
    "unloads",
    "reclaimed_bytes",
)
WORKER_VALUES = (
    "sampled",
    "proportional_bytes",
    "private_bytes",
    "baseline_bytes",
    "hosts_bytes",
    "supervisor_bytes",
    "cgroup_limit_bytes",
    "cgroup_working_set_bytes",
    "cgroup_waiting_seconds",
    "cgroup_stalled_seconds",
    "callback_failures",
)
_PACKAGE_OPTIONS = {f.name: f.type for f in fields(PackageState) if f.name not in PACKAGE_VALUES}
_WORKER_OPTIONS = {f.name: f.type for f in fields(WorkerState) if f.name not in WORKER_VALUES and f.name != "packages"}


def encode(state: WorkerState) -> bytes:
    """Return the bytes of a state file.

    Texts are cut at `MAX_NAME_LENGTH`, with "?" for what cannot be printed: readers refuse a file that holds either.
    """
    import json  # most workers have it already; where not, it costs 1.4 MB that a mere import must not

    catalog: dict[str, Any] = {name: _publishable(getattr(state, name)) for name in _WORKER_OPTIONS}
    catalog["packages"] = [
        {name: _publishable(getattr(package, name)) for name in _PACKAGE_OPTIONS} for package in state.packages
    ]
    text = json.dumps(catalog, separators=(",", ":")).encode()
    values = array("d", [getattr(state, name) for name in WORKER_VALUES])
    for package in state.packages:
        values.extend([getattr(package, name) for name in PACKAGE_VALUES])
    if sys.byteorder == "big":
        values.byteswap()
    return _HEADER.pack(_MAGIC, len(text), len(values)) + text + values.tobytes()


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


def publish(state: WorkerState, path: Path) -> None:
    """Replace the state file at `path`, readable by all, in one step.

    Raises:
        OSError: the directory is gone, full or not ours.
    """
    data = encode(state)
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.fchmod(descriptor, 0o644)  # whatever the umask
        if os.write(descriptor, data) != len(data):
            raise OSError(f"{new}: written short, the file system is full")
    finally:
        os.close(descriptor)
    os.replace(new, path)


def file_stem(pid: int, namespace: str) -> str:
    """Return what a worker's files are called: its pid, with its PID namespace where that is not the machine's first.

    Containers that share a runtime directory, and a user, have workers of the same pids.
    """
    return str(pid) if namespace in ("", _FIRST_PID_NAMESPACE) else f"{pid}-{namespace.strip('pid:[]')}"


def withdraw(path: Path) -> None:
    """Remove a state file, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def state_files(directory: Path) -> Iterator[Path]:
    """Yield the state files in one user's runtime directory."""
    for name in sorted(os.listdir(directory)):
        if name.endswith(".state") and not name.startswith("."):
            yield directory / name


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
    if len(data) < _HEADER.size:
        raise StateError("state file: too short")
    magic, catalog_length, count = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise StateError(f"state file: starts with {magic!r}, not {_MAGIC!r}")
    end = _HEADER.size + catalog_length
    if len(data) != end + 8 * count:
        raise StateError("state file: its length does not fit its header")
    values = array("d", data[end:])
    if sys.byteorder == "big":
        values.byteswap()
    return data[_HEADER.size : end], values


def _catalog(text: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the options of the worker and of each of its packages; not to be changed, they are shared."""
    import json

    try:
        catalog = json.loads(text)
    except ValueError as error:
        raise StateError(f"state file: its catalog is no JSON: {error}") from error
    if not isinstance(catalog, dict):
        raise StateError("state file: its catalog is no object")
    packages = catalog.pop("packages", None)
    if not isinstance(packages, list):
        raise StateError("state file: its catalog has no list of packages")
    return _options(catalog, _WORKER_OPTIONS), [_options(options, _PACKAGE_OPTIONS) for options in packages]


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
        return _is_printable(value)
    if kind == list[str]:
        return len(value) <= MAX_NAMES and all(_is_printable(text) for text in value)
    if kind == dict[str, str]:
        return len(value) <= MAX_NAMES and all(_is_printable(text) for pair in value.items() for text in pair)
    low = UNKNOWN if kind is float else -_LARGEST if name == "priority" else 0
    return bool(low <= value <= _LARGEST)  # false for NaN


def _is_printable(text: Any) -> bool:
    # Names end up in terminals, logs and label values, and other users write these files.
    return type(text) is str and len(text) <= MAX_NAME_LENGTH and text.isprintable()


def _publishable(value: Any) -> Any:
    if type(value) is list:
        return [_publishable(text) for text in value[:MAX_NAMES]]
    if type(value) is dict:
        return {_publishable(name): _publishable(text) for name, text in list(value.items())[:MAX_NAMES]}
    if type(value) is not str or _is_printable(value):
        return value
    return "".join(char if char.isprintable() else "?" for char in value[:MAX_NAME_LENGTH])
