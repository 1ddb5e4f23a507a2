"""The processes of an isolated package as one worker sees them: where its calls wait, and what becomes of them."""

import os
import select
import socket
import time
import weakref

from mempressure import forks
from mempressure.isolation.generation import Generation, GenerationLostError
from mempressure.isolation.starting import LEAST_START_SECONDS, Starter
from mempressure.measure.process import start_ticks
from mempressure.package_process import descendants
from mempressure.protocol.addresses import connect, socket_inode
from mempressure.protocol.slots import SlotRecord

_FORGOTTEN = 0.9  # the part of the waiting so far that still counts after each call
_KILL_SECONDS = 5.0


_connections: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()
"""Those of all threads: in a forked child they would keep the worker's connections open."""


class Processes:
    """The processes of one generation.

    Args:
        generation: the generation, which this object leaves in the end.
        starter: starts its processes.
        packages: the import names that they load, for messages.
    """

    def __init__(self, generation: Generation, *, starter: Starter, packages: tuple[str, ...]) -> None:
        self.generation = generation
        self.starter = starter
        self._packages = packages
        self._waited = 0.0  # seconds that calls waited lately, of which those long ago count for less and less

    def connect(self, began: int) -> tuple[socket.socket, int]:
        """Return a connection to the queue of calls, and the name of its socket; start a process where there is none.

        Args:
            began: when the call was made, in nanoseconds of the monotonic clock.

        Raises:
            ProcessStartError: the process, or one that this call waited for, failed to start.
            MemoryBudgetExceeded: there is no room for it.
            GenerationLostError: the worker has to find its generation anew.
        """
        while True:
            if not self.generation.is_ours():
                raise GenerationLostError
            where, connection = socket_inode(self.generation.socket_path), socket.socket(socket.AF_UNIX)
            _connections.add(connection)
            try:
                connect(connection, self.generation.socket_path)
            except (FileNotFoundError, ConnectionRefusedError):  # no process
                connection.close()
                self.starter.start_first(began)
            except BaseException:
                connection.close()
                raise
            else:
                return connection, where

    def record(self, number: int) -> SlotRecord | None:
        """Return the record of the process in a slot."""
        return self.generation.record(number)

    def note_waiting(self, began: int, where: int) -> bool:
        """Start one process more where a call has waited for longer than that takes; end what runs for nobody.

        Args:
            began: when the call was made, in nanoseconds of the monotonic clock.
            where: the socket where it waits, as `connect` named it.

        Returns:
            Whether the call is to be made anew: other calls wait at another socket by now, since no process could hand
            over this one, or there was no process while another program had a copy of the socket.

        Raises:
            ProcessStartError: the process, or one that this call waited for, failed to start.
            MemoryBudgetExceeded: there is no room for it.
        """
        if where != socket_inode(self.generation.socket_path):
            return True
        if not self.generation.living():
            return self.starter.start_first(began)
        records = self.generation.records().values()
        for record in records:
            call = record.call
            if call and not has_caller(record):
                end_call(record, call)
        # A process that has just started may be about to run it.
        since = max((began, *(record.ready_at for record in records)))
        if records and time.monotonic_ns() - since > self.starter.seconds() * 1e9:
            self.starter.start_more()
        return False

    def note_waited(self, seconds: float) -> None:
        """Start one process more where calls have waited for longer, together, than starting one takes."""
        self.starter.release_reservations()  # from its first call on, the memory of a process is measured
        self._waited = self._waited * _FORGOTTEN + seconds
        if self._waited > LEAST_START_SECONDS and self._waited > self.starter.seconds():
            self._waited = 0.0
            self.starter.start_more()

    def abandon(self, number: int) -> None:
        """End the process that runs the call of this id, whose caller waits no more."""
        for record in self.generation.records().values():
            if record.call == number:
                end_call(record, number)

    def describe_death(self, number: int) -> str:
        """Say which process ended that ran the call of this id, and how."""
        pid = next((record.pid for record in self.generation.all_records().values() if record.call == number), 0)
        names = ", ".join(self._packages)
        if not pid:
            return f"a package process of {names} ended"
        child = self.starter.children.get(pid)
        if child is None:
            wait_for_end(pid, _KILL_SECONDS)
        else:
            child.ended.wait(_KILL_SECONDS)
        from mempressure.isolation.spawner import describe_status  # loaded where the process was started

        status = self.starter.statuses.get(pid)
        return f"the package process of {names} (pid {pid}) {describe_status(status)}"

    def close(self) -> None:
        """Use the generation no more."""
        self.starter.release_reservations()
        self.generation.leave()

    def forget(self) -> None:
        """Let go of everything in a forked child: it is the parent's."""
        for child in list(self.starter.children.values()):
            child.forget()
        self.generation.leave_to_parent()


def has_caller(record: SlotRecord) -> bool:
    """Return whether the worker lives whose call a process runs."""
    try:
        return start_ticks(record.caller) == record.caller_ticks
    except OSError:
        return False


def end_call(record: SlotRecord, call: int) -> None:
    """Kill a process, if it still runs a call that nobody waits for."""
    # In this order: the process looks whether its call was abandoned after it has set `call` to 0, so that either it
    # sees this, and takes no other call, or this sees that it has gone on.
    record.abandoned = call
    if record.call == call:
        descendants.kill_group(record.pid, record.ticks)


def wait_for_end(pid: int, seconds: float) -> bool:
    """Wait for the end of a process that another worker may have started; return whether it has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except (OSError, AttributeError):  # before Linux 5.3
        return _polled_end(pid, seconds)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(max(0.0, seconds) * 1000))
    finally:
        os.close(descriptor)


def _polled_end(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while os.path.exists(f"/proc/{pid}/smaps"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _after_fork_in_child() -> None:
    for connection in list(_connections):
        connection.close()


forks.in_child(_after_fork_in_child)
