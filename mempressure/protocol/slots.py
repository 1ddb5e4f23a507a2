"""Slots: the places that package processes of one generation take, each with a record that workers read.

A slot is a file of one page. The process in it holds a POSIX lock on it, by which everybody sees whether it lives: the
kernel frees the lock when it ends, and a forked child does not inherit it. The rest is a record of 64-bit integers,
mapped by the process and by workers; each is written as a whole, so no reader sees half of a number.
"""

import fcntl
import mmap
import os
import struct

TYPE_CHECKING = False  # typing's own would load typing

MOST_SLOTS = 64
"""Most package processes of one generation."""

_BYTES = 4096
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid
_FIELDS = (
    "pid",
    "ticks",
    "ready_in",
    "ready_at",
    "call",
    "caller",
    "caller_ticks",
    "call_began",
    "calls",
    "last_used",
    "idle_since",
    "stopping",
    "abandoned",
    "private",
    "proportional",
    "measured",
)


class SlotRecord:
    """What a package process publishes about itself, and workers about it: integers, 0 where there is nothing to say.

    Args:
        memory: the slot's file, mapped.

    Attributes:
        pid: its process id.
        ticks: its start time, in clock ticks since boot.
        ready_in: nanoseconds that its start took, imports included; 0 while it starts.
        ready_at: when that was done, in nanoseconds of the monotonic clock.
        call: the id of the call that it runs.
        caller: the process id of the worker that made it.
        caller_ticks: that worker's start time, in clock ticks since boot.
        call_began: when it began, in nanoseconds of the monotonic clock.
        calls: calls that it has answered.
        last_used: when the last call ended, in Unix nanoseconds.
        idle_since: when the last call ended, in nanoseconds of the monotonic clock.
        stopping: 1 once it ends in an orderly way; its end is no death then.
        abandoned: the id of a call whose caller is gone, written by a worker: when it ends the process ends too.
        private: bytes of private memory, of it and of what it started, when a worker measured it last.
        proportional: bytes of proportional memory (PSS), of the same at the same time.
        measured: when that was, in Unix nanoseconds.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._values = memoryview(memory).cast("q")

    if TYPE_CHECKING:
        pid: int
        ticks: int
        ready_in: int
        ready_at: int
        call: int
        caller: int
        caller_ticks: int
        call_began: int
        calls: int
        last_used: int
        idle_since: int
        stopping: int
        abandoned: int
        private: int
        proportional: int
        measured: int

    def clear(self) -> None:
        """Set everything to 0, for a new process."""
        for place in range(len(_FIELDS)):
            self._values[place] = 0


def _value_at(place: int) -> property:
    def value(record: SlotRecord) -> int:
        return record._values[place]  # noqa: SLF001 - the accessors of that class

    def set_value(record: SlotRecord, number: int) -> None:
        record._values[place] = number  # noqa: SLF001 - the accessors of that class

    return property(value, set_value)


for _place, _name in enumerate(_FIELDS):
    setattr(SlotRecord, _name, _value_at(_place))


def slot_path(directory: str, number: int) -> str:
    """Return the path of a slot's file."""
    return f"{directory}/slot{number}"


def control_path(directory: str, number: int) -> str:
    """Return the path of the socket on which the process in a slot is asked to end, or for the listening socket."""
    return f"{directory}/control{number}"


def take(directory: str, number: int) -> SlotRecord | None:
    """Take a slot for this process until it ends; None where a living process has it.

    Keep the record, and neither `read` this slot nor ask for its `holder` here: closing any descriptor of the file,
    that of the record's mapping too, releases a POSIX lock.

    Raises:
        OSError: the file cannot be made, for example on a full disk.
    """
    descriptor = os.open(slot_path(directory, number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held while the descriptor is open: it is never closed
    except OSError:
        os.close(descriptor)
        return None
    # Writing to a mapped page that the full file system has no room for would be SIGBUS.
    os.posix_fallocate(descriptor, 0, _BYTES)
    record = SlotRecord(mmap.mmap(descriptor, _BYTES))
    record.clear()
    record.pid, record.ticks = os.getpid(), start_ticks(os.getpid())
    return record


def read(directory: str, number: int) -> SlotRecord | None:
    """Return the record of a slot, None where there is none yet."""
    try:
        descriptor = os.open(slot_path(directory, number), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(descriptor).st_size < _BYTES:  # its process has just made it
            return None
        return SlotRecord(mmap.mmap(descriptor, _BYTES))
    finally:
        os.close(descriptor)


def holder(directory: str, number: int) -> int:
    """Return the process id of the living process in a slot, 0 where there is none."""
    try:
        descriptor = os.open(slot_path(directory, number), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return 0
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return 0 if kind == fcntl.F_UNLCK else pid


def holders(directory: str) -> dict[int, int]:
    """Return the process ids of the living processes of a generation, by the numbers of their slots."""
    living = {}
    for number in range(MOST_SLOTS):
        if not os.path.exists(slot_path(directory, number)):  # slots are taken from the lowest on
            break
        pid = holder(directory, number)
        if pid:
            living[number] = pid
    return living


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 where that cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return int(file.read(1024).rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
