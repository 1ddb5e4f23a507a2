"""Memory of single processes, read from `/proc`.

All sizes are bytes. *Private* memory is what the end of the process would free; *proportional* memory (PSS) counts each
shared page divided by the number of processes that map it, so the sum over processes counts no page twice.
"""

import os
from collections.abc import Mapping

from mempressure.record import Record

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

LOADED_PARENT_BYTES = 12 << 20
"""A process that has more anonymous memory in common with others was forked from a loaded parent.

Measured in gunicorn's workers: 4 to 8 MiB are the arbiter's, 16 to 19 with Flask preloaded, 47 to 51 with sympy.
"""


class ProcessMemory(Record):
    """Memory of one process in bytes, swapped pages included."""

    proportional: int
    private: int
    anonymous: int = 0
    shared: int = 0
    """The part of `anonymous` shared with the process that it was forked from, or with its own forked children."""


MeasuredProcesses = Mapping[str, Mapping[int, ProcessMemory]]
"""The memory of package processes, by package and pid."""


def process_memory(pid: int | str = "self", *, proc: str = "/proc") -> ProcessMemory:
    """Read one process's memory from `smaps_rollup`.

    The kernel walks every mapping for it: 0.2 ms at 20 MB, 13 ms at 1 GB, so callers bound how often they ask.

    Raises:
        ProcessLookupError: the process is gone (a zombie holds no memory and counts as gone).
        PermissionError: the process belongs to another user.
    """
    path = f"{proc}/{pid}/smaps_rollup"
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read(4096)
    except FileNotFoundError:
        raise ProcessLookupError(f"no {path}: process {pid} is gone, or the kernel is older than Linux 4.14") from None
    except ProcessLookupError:
        raise ProcessLookupError(f"process {pid} holds no memory: it is ending") from None
    fields = _kilobyte_fields(text)
    if b"Pss" not in fields:
        raise ProcessLookupError(f"process {pid} holds no memory: it is ending")
    # Its share of swapped pages (SwapPss) is freed with it, as its private pages are.
    swapped = fields.get(b"SwapPss", 0)
    anonymous, dirty = fields.get(b"Anonymous", 0), fields.get(b"Private_Dirty", 0)
    return ProcessMemory(
        proportional=fields[b"Pss"] + swapped,
        private=fields.get(b"Private_Clean", 0) + dirty + swapped,
        anonymous=anonymous,
        shared=max(0, anonymous - dirty),
    )


def forked_from_loaded_parent() -> bool:
    """Return whether this process shares so much with others that it was forked from a parent that had loaded it.

    So does a process that has forked others itself; writing to what it had at that time costs as much.
    """
    try:
        return process_memory().shared > LOADED_PARENT_BYTES
    except OSError:  # no /proc
        return False


def private_bytes(pid: int | str = "self", *, proc: str = "/proc") -> int:
    """Return the private bytes of process `pid`, which its end would free; raises as `process_memory` does."""
    return process_memory(pid, proc=proc).private


def anonymous_bytes(pid: int | str = "self", *, proc: str = "/proc") -> int:
    """Return resident minus shared memory of a process: cheap (about 2 us), and precise enough to see growth.

    Raises:
        ProcessLookupError: the process is gone.
    """
    try:
        with open(f"{proc}/{pid}/statm", "rb", buffering=0) as file:
            fields = file.read(128).split()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid} in {proc}") from None
    return (int(fields[1]) - int(fields[2])) * PAGE_BYTES


def start_ticks(pid: int | str = "self", *, proc: str = "/proc") -> int:
    """Return when a process started, in clock ticks since boot; together with the pid that identifies it uniquely.

    Raises:
        ProcessLookupError: the process is gone (a zombie has ended and counts as gone).
        PermissionError: the process belongs to another user, and `/proc` is mounted with `hidepid`.
    """
    try:
        # Not `open`, which takes 3 us of the 10: each scrape does this for every worker.
        descriptor = os.open(f"{proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 1024)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid} in {proc}") from None
    # Fields 3 and 22 of proc(5); the name in field 2 may hold spaces and brackets, so fields are counted from its end.
    fields = text.rpartition(b")")[2].split()
    if not fields or fields[0] in (b"Z", b"X"):
        raise ProcessLookupError(f"process {pid} has ended and was not reaped by its parent yet")
    return int(fields[19])


def pid_namespace(*, proc: str = "/proc") -> str:
    """Return the name of this process's PID namespace; empty where the kernel does not show it."""
    try:
        return os.readlink(f"{proc}/self/ns/pid")
    except OSError:
        return ""


def _kilobyte_fields(text: bytes) -> dict[bytes, int]:
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(b":")
        number, _, unit = value.strip().partition(b" ")
        if unit == b"kB":
            fields[name] = int(number) * 1024
    return fields
