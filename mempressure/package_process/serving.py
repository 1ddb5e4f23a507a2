"""The serving loop of a package process: takes the calls of all workers in the order of their arrival, one at a time.

Calls come over connections that workers keep, and over new ones. New connections wait at one listening socket that all
processes of a generation accept from, whichever is free first: that is their common queue. A worker whose call waits
for longer than a moment at a connection that it keeps withdraws it (it shuts down its side) and joins that queue.
"""

import os
import select
import socket
import struct
import time
from collections import deque

from mempressure.protocol import frames
from mempressure.protocol.addresses import socket_inode
from mempressure.protocol.frames import Channel, Payload
from mempressure.protocol.slots import SlotRecord, holder, start_ticks

TYPE_CHECKING = False  # typing's own would load typing

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SURPLUS_SECONDS = 2.0
"""A process that is not the only one ends when it was idle for most of this time."""

_BUSY_SHARE = 0.3  # of that time, with which it is still needed
_SEND_SECONDS = 2.0  # without progress; then the worker is not waited for any longer, which may be stopped
_WITHDRAWN_AFTER_NANOSECONDS = 1_000_000  # workers withdraw calls after twice that
_EXCLUSIVE = 1 << 28  # EPOLLEXCLUSIVE: one process wakes for a connection; select has it from Python 3.14 on
_LONG_NANOSECONDS = 500_000_000  # a call of such length may have kept this process from answering workers
_PAUSE_SECONDS = 0.05  # after a connection could not be accepted
_PART_TIMEOUT = struct.pack("ll", 0, 20_000)  # for the next part of a call, where nothing else is to be done
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class _Caller:
    """A connected worker."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.channel = Channel(connection)
        self.pid = pid
        self.ticks = start_ticks(pid)
        self.queued = False
        self.is_late = False
        """It had its turn before all of its call was there, and has the next one once the rest comes."""


class _Patience:
    """Waits for a worker to take what is sent to it, as long as it takes something from time to time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def wait(self) -> None:
        """Wait until more can be sent; raise `TimeoutError` where that takes too long."""
        poll = select.poll()
        poll.register(self._channel.socket, select.POLLOUT)
        if not poll.poll(_SEND_SECONDS * 1000):
            raise TimeoutError


class Service:
    """Serves the workers of an app until a worker asks for the end, or the process is not needed any more.

    Args:
        listener: the listening socket, which all processes of the generation accept from.
        slot: this process's record.
        place: the directory of the generation, and the number of the slot.
        answer: runs a call; returns the kind and the value of the answer.
        after_call: called when a call was answered and no other waits.
    """

    def __init__(
        self,
        listener: socket.socket,
        slot: SlotRecord,
        *,
        place: tuple[str, int],
        answer: "Callable[[Payload], tuple[int, Payload]]",
        after_call: "Callable[[], None]",
    ) -> None:
        self._listener = listener
        self._slot = slot
        self._directory, self._number = place
        self._answer = answer
        self._after_call = after_call
        self._callers: dict[int, _Caller] = {}
        self._queue: deque[_Caller] = deque()
        self._waiting = False  # a connection, to be accepted
        self._calling: _Caller | None = None
        self._requests: deque[tuple[Channel, float | None]] = deque()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        listener.setblocking(False)
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN | _EXCLUSIVE)
        self._poll.register(self._wakeup, select.EPOLLIN)
        self._window = time.monotonic()
        self._busy = 0.0
        self._where = socket_inode(f"{self._directory}/socket")
        self._took_long = False

    @property
    def listener(self) -> socket.socket:
        """The listening socket."""
        return self._listener

    def serve(self) -> Channel | None:
        """Serve; return the connection of the worker that asked for the end, None where the process is surplus."""
        while True:
            if not self._waiting:
                self._gather(0 if self._queue else SURPLUS_SECONDS if self._number else None)
            while self._requests:
                channel, idle_for = self._requests.popleft()
                if self._may_end(channel, idle_for):
                    return channel
            if self._is_surplus() or (not self._queue and self._is_superseded()):
                return None
            caller = None
            # Where connections always wait, what is queued here gets no turn. Workers withdraw calls from connections
            # that they have kept, and join that queue; a call that came by it cannot be withdrawn.
            if self._waiting and not (self._queue and self._queue[0].is_late):
                self._waiting = False
                caller = self._accepted()
            if caller is None and self._queue:
                caller = self._queue.popleft()
                caller.queued = False
            if caller is not None:
                self._serve(caller)

    def request_end(self, channel: Channel, *, idle_for: float | None) -> None:
        """Ask the process to end, from another thread; it answers over the channel where it does not."""
        self._requests.append((channel, idle_for))
        os.eventfd_write(self._wakeup, 1)

    def take_requests(self) -> "list[Channel]":
        """Return the connections of workers that have asked for the end and were not answered."""
        channels = []
        while self._requests:
            channels.append(self._requests.popleft()[0])
        return channels

    def send_log(self, record: "dict[str, Any]") -> None:
        """Send a log record to the worker whose call runs.

        Raises:
            OSError: it takes none.
        """
        caller = self._calling
        if caller is None:
            raise BrokenPipeError
        try:
            caller.channel.send(frames.LOG, frames.encode(record), waiting=_Patience(caller.channel).wait)
        except OSError:
            caller.channel.shutdown()  # it may have half of a record
            raise

    def close(self) -> None:
        """Take no more calls: those that come from now on fail at once, and are made in another process."""
        self._listener.close()
        for caller in list(self._callers.values()):
            caller.channel.close()
        self._callers.clear()
        self._poll.close()

    def _gather(self, seconds: float | None) -> None:
        """Queue the callers that have sent something, in the order of arrival; note whether a connection waits."""
        for descriptor, _ in self._poll.poll(seconds):
            if descriptor == self._listener.fileno():
                self._waiting = True
            elif descriptor == self._wakeup:
                os.eventfd_read(self._wakeup)
            else:
                caller = self._callers.get(descriptor)
                if caller is not None and not caller.queued:
                    caller.queued = True
                    if caller.is_late:
                        self._queue.appendleft(caller)
                    else:
                        self._queue.append(caller)

    def _accepted(self) -> _Caller | None:
        """Accept one connection: no more than are served at once, since another process may serve the next."""
        try:
            connection = self._listener.accept()[0]
        except BlockingIOError:  # another process was faster
            return None
        except OSError:  # there is no descriptor left
            time.sleep(_PAUSE_SECONDS)
            return None
        pid, uid = peer_of(connection)
        if uid != os.geteuid():
            connection.close()
            return None
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PART_TIMEOUT)
        caller = _Caller(connection, pid)
        self._callers[connection.fileno()] = caller
        # Edge-triggered: one event for each arrival, in their order.
        self._poll.register(connection, select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP)
        return caller

    def _serve(self, caller: _Caller) -> None:
        """Receive a call, run it and answer; drop the caller where it has ended, withdrawn its call or stopped."""
        channel = caller.channel
        try:
            try:
                frame = self._received(channel)
                caller.is_late = False
            except BlockingIOError:
                caller.is_late = True
                return  # the rest comes later, with an event of its own
            except frames.NoMemoryForMessageError as error:
                channel.send(
                    frames.REFUSED, frames.encode(("size", "MemoryError", str(error), "")), number=self._number
                )
                return
            if frame.kind != frames.CALL:  # a stranger's
                self._drop(caller)
                return
            now = time.monotonic_ns()
            waited = now - frame.nanoseconds
            if waited > _WITHDRAWN_AFTER_NANOSECONDS and channel.at_end:
                channel.send(frames.SKIPPED, frames.encode(None))
                self._drop(caller)
                return
            kind, payload = self._run(caller, frame.number, frame.payload)
            del frame  # the arguments may be large, and must not stay in memory until the next call
            self._gather(0)  # who has come before this answer goes out is served before who gets it
            number = self._number | frames.OTHERS_WAIT if self._queue or self._waiting else self._number
            waited = min(waited, now - self._slot.ready_at)
            channel.send(kind, payload, number=number, nanoseconds=waited, waiting=_Patience(channel).wait)
            if number == self._number:
                self._after_call()
        except (EOFError, OSError, MemoryError, struct.error, ValueError):  # also a stranger's frame
            self._drop(caller)

    def _received(self, channel: Channel) -> frames.Frame:
        """Return a call; one of which a part has come is waited for as long as more comes, where no other waits."""
        try:
            return channel.receive()
        except BlockingIOError:
            if not channel.receiving or self._queue:
                raise
        # Its large buffers come with one system call each instead of one for each part.
        channel.socket.setblocking(True)
        try:
            return channel.receive()
        finally:
            channel.socket.setblocking(False)

    def _run(self, caller: _Caller, number: int, call: Payload) -> "tuple[int, Payload]":
        slot = self._slot
        slot.caller, slot.caller_ticks = caller.pid, caller.ticks
        slot.abandoned = 0
        began = slot.call_began = time.monotonic_ns()
        slot.call = number
        self._calling = caller
        try:
            return self._answer(call)
        finally:
            self._calling = None
            slot.last_used = time.time_ns()
            slot.idle_since = time.monotonic_ns()
            slot.call = 0
            slot.calls += 1
            self._busy += (slot.idle_since - began) / 1e9
            self._took_long = self._took_long or slot.idle_since - began > _LONG_NANOSECONDS
            if number and slot.abandoned == number:
                os._exit(0)  # a worker is about to kill this process, since nobody waits for that call

    def _drop(self, caller: _Caller) -> None:
        descriptor = caller.channel.socket.fileno()
        if caller.queued:
            self._queue.remove(caller)
        if self._callers.pop(descriptor, None) is not None:
            # Closing would do it, unless a child that C code forked has a copy.
            self._poll.unregister(descriptor)
        caller.channel.close()

    def _may_end(self, channel: Channel, idle_for: float | None) -> bool:
        """Return whether the process may end now; tell the worker that asked why not."""
        reason = ""
        if channel.at_end:  # the worker has given up
            channel.close()
            return False
        self._gather(0)
        if self._waiting or any(not caller.channel.at_end for caller in self._queue):
            reason = "in use"
        elif idle_for is not None and self._slot.idle_since:
            idle = (time.monotonic_ns() - self._slot.idle_since) / 1e9
            if idle < idle_for:
                reason = f"used {idle:.1f} s ago"
        if not reason:
            return True
        try:
            channel.send(frames.IN_USE, frames.encode(reason))
        except OSError:
            pass  # it has given up
        channel.close()
        return False

    def _is_surplus(self) -> bool:
        """Return whether this process was idle for long enough, and one with a lower number is there."""
        now = time.monotonic()
        passed = now - self._window
        if not self._number or passed < SURPLUS_SECONDS:
            return False
        # One process alone is woken for a connection: it takes that before it ends.
        idle = self._busy < _BUSY_SHARE * passed and not self._queue and not self._waiting
        self._window, self._busy = now, 0.0
        return idle and any(holder(self._directory, number) for number in range(self._number))

    def _is_superseded(self) -> bool:
        """Return whether calls wait at another socket by now: in a long call this process did not hand over its own."""
        if not self._took_long:
            return False
        self._took_long = False
        return self._where != socket_inode(f"{self._directory}/socket")


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return the process id and the user id of the other end, as the kernel knows them."""
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid
