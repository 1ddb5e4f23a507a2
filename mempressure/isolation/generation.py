"""Generations: sets of package processes that may take each other's calls, and the directory that each set has.

<runtime>/<uid>/processes/
    lock                  held while a worker finds its generation, or removes those that have no worker
    <key>.<n>/            a generation: key names what its workers have in common, n is higher for newer code
        users             each worker holds a shared lock on it: one that can get an exclusive lock is the last
        life              a FIFO that each worker holds open for writing: the processes end with the last one
        start             held while a process is started
        socket            where calls wait for whichever process is free
        failure           why the last start failed, for those that waited for it
        slot0, slot1 ...  the processes: see `mempressure.protocol.slots`
        control0 ...      where each is asked to end
        files0 ...        what each has loaded: see `mempressure.protocol.files`
"""

import fcntl
import os
import time
import weakref
from contextlib import suppress
from hashlib import blake2b

from mempressure import forks
from mempressure.measure.descriptor import OwnDescriptor
from mempressure.measure.process import ProcessMemory, pid_namespace, start_ticks
from mempressure.package_process import interpreter
from mempressure.package_process.descendants import memory_of_tree
from mempressure.protocol import files, slots
from mempressure.protocol.slots import SlotRecord

TYPE_CHECKING = False  # typing's own would load typing

if TYPE_CHECKING:
    from collections.abc import Iterable

_RETRY_SECONDS = 0.002  # between looks whether a lock is free
_lost: list[object] = []
"""Objects that would close a descriptor that is somebody else's by now, kept for good."""


class GenerationLostError(Exception):
    """A worker's generation is not usable any more: its descriptors were closed, or its directory was removed."""


def key_of(name: str, packages: tuple[str, ...], *, app: str, paths: "Iterable[tuple[str, ...]]", own: bool) -> str:
    """Return what names all workers whose calls one process may run.

    Those are the workers of one server and app, of one user, in one container, with the same interpreter, options,
    path and environment.

    Args:
        name: of the isolated package.
        packages: the import names that its processes load.
        app: the app's name.
        paths: `sys.path` at each declaration.
        own: whether this worker is to have processes of its own.
    """
    server = os.getpid() if own else os.getppid()
    what = (
        (name, packages, app, own),
        (server, start_ticks(server), pid_namespace(), _cgroup(), os.geteuid(), os.getegid()),
        interpreter.fingerprint(paths),
    )
    return blake2b(repr(what).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _cgroup() -> bytes:
    """Return the cgroups of this process as the kernel names them: a process's memory counts where it was started."""
    try:
        with open("/proc/self/cgroup", "rb") as file:
            return file.read()
    except OSError:
        return b""


class Generation:
    """One generation, which this worker uses until `leave`.

    Args:
        directory: of the generation.
        users: its locked file.
        life: its FIFO, open for writing.

    Attributes:
        directory: as given.
        identity: what workers publish, so that readers see which of them share processes.
    """

    def __init__(self, directory: str, users: OwnDescriptor[int], life: OwnDescriptor[int]) -> None:
        self.directory = directory
        self.identity = os.path.basename(directory)
        self._users = users
        self._life = life
        self._records: dict[int, SlotRecord] = {}
        self._left = False
        _held.add(self)

    @property
    def socket_path(self) -> str:
        """Where calls wait."""
        return f"{self.directory}/socket"

    def is_ours(self) -> bool:
        """Return whether the descriptors by which the processes know that this worker lives are open, and its files.

        A program may close all descriptors, and someone may empty the runtime directory.
        """
        if not self._holds():
            return False
        try:
            return os.path.samestat(os.stat(f"{self.directory}/users"), os.fstat(self._users.number))
        except OSError:
            return False

    def _holds(self) -> bool:
        return self._life.is_ours() and self._users.is_ours()

    def living(self) -> dict[int, int]:
        """Return the process ids of the processes that live, by slot; some of them may be starting."""
        return slots.holders(self.directory)

    def record(self, number: int) -> SlotRecord | None:
        """Return the record of a slot."""
        record = self._records.get(number)
        if record is None:
            record = slots.read(self.directory, number)
            if record is not None:
                self._records[number] = record
        return record

    def records(self) -> dict[int, SlotRecord]:
        """Return the records of the processes that live and have started."""
        found = {}
        for number in self.living():
            record = self.record(number)
            if record is not None and record.ready_in:
                found[number] = record
        return found

    def all_records(self) -> dict[int, SlotRecord]:
        """Return the records of all slots, by number, also of processes that have ended."""
        found = {}
        for number in range(slots.MOST_SLOTS):
            record = self.record(number)
            if record is None:
                break
            found[number] = record
        return found

    def start_lock(self) -> "Lock | None":
        """Take the lock for starting processes, None where another worker or thread has it.

        Raises:
            OSError: the file cannot be made.
        """
        return Lock.taken(f"{self.directory}/start")

    def leave(self) -> None:
        """Use it no more; its processes end with the last worker."""
        if self._left:
            return
        self._left = True
        if not self._holds():
            _lost.append(self._records)  # each mapping has a descriptor that it would close
        self._users.close()
        self._life.close()

    def leave_to_parent(self) -> None:
        """Use it no more in a forked child."""
        self.leave()

    def is_last_user(self) -> bool:
        """Return whether no other worker uses it, and none will from now on."""
        try:
            fcntl.flock(self._users.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Remove the directory of a generation without processes and other workers."""
        _remove(self.directory)


class Lock:
    """A lock of a file that one process and thread at a time holds, until `release` or its end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = OwnDescriptor(descriptor)
        _held.add(self)

    @classmethod
    def taken(cls, path: str, *, deadline: float | None = None) -> "Lock | None":
        """Take the lock; None where it is not free, by `deadline` of the monotonic clock where one is given.

        Raises:
            OSError: the file cannot be made.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if deadline is None or time.monotonic() > deadline:
                    os.close(descriptor)
                    return None
                time.sleep(_RETRY_SECONDS)
            else:
                return cls(descriptor)

    def release(self) -> None:
        """Release it, also for children forked meanwhile."""
        if self._descriptor.is_ours():
            fcntl.flock(self._descriptor.number, fcntl.LOCK_UN)
        self._descriptor.close()

    def leave_to_parent(self) -> None:
        """Close it in a forked child, without releasing it: the parent has it."""
        self._descriptor.close()


def join(base: str, key: str, *, declared_at: int, lock_seconds: float = 10.0) -> Generation:
    """Return the newest generation whose processes run this worker's code, a new one where there is none.

    Args:
        base: the directory of generations, which is this user's own.
        key: as `key_of` gave it.
        declared_at: when this worker's code was loaded, in Unix nanoseconds.
        lock_seconds: how long to wait for others who look for theirs.

    Raises:
        OSError: a file cannot be made, or others held the lock for too long.
    """
    lock = Lock.taken(f"{base}/lock", deadline=time.monotonic() + lock_seconds)
    if lock is None:
        raise TimeoutError(f"{base}/lock was held by others for {lock_seconds:g} s")
    try:
        numbers = []
        for name in os.listdir(base):
            begin, _, digits = name.partition(".")
            if digits.isdecimal():
                if begin == key:
                    numbers.append(int(digits))
                else:
                    _remove_unused(f"{base}/{name}")
        found = _newest([f"{base}/{key}.{number}" for number in sorted(numbers, reverse=True)], declared_at)
        return found or _created(f"{base}/{key}.{max(numbers, default=0) + 1}")
    finally:
        lock.release()


def _newest(directories: "Iterable[str]", declared_at: int) -> Generation | None:
    """Use the newest generation whose processes run this worker's code, or else the newest that has none."""
    empty: Generation | None = None
    for directory in directories:
        generation = _joined(directory)
        if generation is None:
            continue
        records = generation.records()
        if not records and empty is None:
            empty = generation  # a worker from before a change may find one with its own code yet
        elif records and _runs_code_of(generation, declared_at):
            if empty is not None:
                empty.leave()
            return generation
        else:
            generation.leave()
    return empty


def _created(directory: str) -> Generation:
    os.mkdir(directory, 0o700)
    try:
        os.mkfifo(f"{directory}/life", 0o600)
        users, life = _opened(directory, create=os.O_CREAT)
    except OSError:
        _remove(directory)
        raise
    return Generation(directory, users, life)


def _joined(directory: str) -> Generation | None:
    """Use a generation; None where its last worker is ending it."""
    try:
        users, life = _opened(directory)
    except OSError:
        return None
    return Generation(directory, users, life)


def _opened(directory: str, *, create: int = 0) -> tuple[OwnDescriptor[int], OwnDescriptor[int]]:
    """Open and lock the file of users, and open the FIFO."""
    # Made with the generation alone: its last worker may be removing it.
    users = os.open(f"{directory}/users", os.O_RDWR | create | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # For reading too: without a reader, opening it for writing alone would fail.
        life = os.open(f"{directory}/life", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        os.close(users)
        raise
    return OwnDescriptor(users), OwnDescriptor(life)


def _runs_code_of(generation: Generation, declared_at: int) -> bool:
    return all(
        files.are_those_of(generation.directory, number, declared_at=declared_at) for number in generation.records()
    )


def _remove_unused(directory: str) -> None:
    """Remove a generation that all workers have left, as one that was killed leaves behind."""
    with suppress(OSError):
        users = os.open(f"{directory}/users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(directory)
        finally:
            os.close(users)


def _remove(directory: str) -> None:
    with suppress(OSError):
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)


def memory_of(pid: int, *, oldest_seconds: float) -> ProcessMemory:
    """Return the memory of a package process with all that it started, measured by this worker or another that uses it.

    Args:
        pid: the process.
        oldest_seconds: how old a measurement of another worker may be: one takes 13 ms for a process of 1 GB.

    Raises:
        ProcessLookupError: the process is gone.
    """
    generations = [each for each in list(_held) if isinstance(each, Generation)]
    records = (record for each in generations for record in each.all_records().values())
    record = next((record for record in records if record.pid == pid), None)
    if record is not None and 0 <= time.time_ns() - record.measured < oldest_seconds * 1e9:
        return ProcessMemory(record.proportional, record.private)
    private, proportional = memory_of_tree(pid)
    if record is not None:
        record.private, record.proportional, record.measured = private, proportional, time.time_ns()
    return ProcessMemory(proportional, private)


_held: "weakref.WeakSet[Generation | Lock]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # Also those that a thread of the parent was about to use: the child would keep processes and locks alive.
    for each in list(_held):
        each.leave_to_parent()


forks.in_child(_after_fork_in_child)
