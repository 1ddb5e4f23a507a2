"""A worker's connections to package processes, and a call over one of them: sent, waited for, answered.

A thread keeps the connection over which it was answered at once. Where its process is busy the call goes to the queue
that all processes share, by a new connection. A call that nobody has read after two milliseconds is withdrawn: the
worker shuts down its side, and a call with an end behind it is never run, so that none runs twice.
"""

import fcntl
import itertools
import os
import socket
import struct
import termios
import time
from typing import TYPE_CHECKING

from mempressure.errors import IsolationError, ProcessDiedError
from mempressure.measure.descriptor import OwnDescriptor
from mempressure.protocol import frames
from mempressure.protocol.frames import Channel, Frame, Payload
from mempressure.protocol.slots import SlotRecord

if TYPE_CHECKING:
    from typing import Protocol

    class Queue(Protocol):
        """Where calls wait: the processes that may run them."""

        def connect(self, began: int) -> tuple[socket.socket, int]:
            """Return a new connection, and what names the socket where its calls wait.

            Args:
                began: when the call was made, in nanoseconds of the monotonic clock.
            """

        def record(self, number: int) -> SlotRecord | None:
            """Return the record of the process in a slot."""

        def note_waiting(self, began: int, where: int) -> bool:
            """Note that a call still waits; return whether it is to be made anew.

            Args:
                began: when the call was made, in nanoseconds of the monotonic clock.
                where: the socket where it waits.
            """

        def note_waited(self, seconds: float) -> None:
            """Note for how long a call had waited when it was run."""

        def abandon(self, number: int) -> None:
            """End the process that runs the call of this id, since nobody waits for it any more."""

        def describe_death(self, number: int) -> str:
            """Say which process ended that ran the call of this id, and how."""


_ATTEMPTS = 8  # of one call: each process that ended before it took the call costs one or two
_MOVE_SECONDS = 0.002  # after which a call that no process has read moves from a kept connection to the queue
_MOVE_NANOSECONDS = int(_MOVE_SECONDS * 1e9)
_TICK_SECONDS = 0.05  # between looks at a call that waits in the queue, or runs
# A larger call fills the socket's buffer, and cannot be withdrawn: it joins the queue at once.
_LARGE_BYTES = 128 * 1024
_MOST_KEPT = 64  # connections
_NOTHING = b"\0\0\0\0"  # an int, as the ioctl returns it where all was read


class NotRunError(ProcessDiedError):
    """A call was not read by any process, and can be made again."""


class _Connection:
    __slots__ = ("channel", "is_withdrawn", "own", "pid", "record", "where")

    def __init__(self, connection: socket.socket, where: int) -> None:
        self.where = where
        self.set_timeout(connection, _MOVE_SECONDS)
        self.own = OwnDescriptor(connection)
        self.channel = Channel(connection)
        self.record: SlotRecord | None = None  # of its process, once that has answered
        self.pid = 0
        self.is_withdrawn = False

    @staticmethod
    def set_timeout(connection: socket.socket, seconds: float) -> None:
        """Have sending and receiving on a socket raise one of `frames.PAUSED` after so many seconds."""
        if type(connection).__module__ != "socket":  # gevent's and the like, which must not block
            connection.settimeout(seconds)
            return
        # The kernel's timeout: with Python's, each send and receive begins with a system call more.
        timeout = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)

    def is_free(self) -> bool:
        """Return whether its process seems to be free, or to be so in a moment."""
        record = self.record
        return record is None or not record.call or time.monotonic_ns() - record.call_began < _MOVE_NANOSECONDS

    def has_ended(self) -> bool:
        """Return whether its process is known to have ended, or to be about to."""
        record = self.record
        return record is not None and (record.pid != self.pid or bool(record.stopping))

    def is_idle(self) -> bool:
        """Return whether its process runs no call."""
        return self.record is not None and not self.record.call

    def is_unread(self) -> bool:
        """Return whether the process has not read all that was sent."""
        return fcntl.ioctl(self.channel.socket, termios.TIOCOUTQ, _NOTHING) != _NOTHING


_numbers = itertools.count(1)
"""Of calls, in this process."""


class Connections:
    """The connections of one worker to the processes of one generation.

    Args:
        queue: the processes.
    """

    def __init__(self, queue: "Queue") -> None:
        self._queue = queue
        self._kept: list[_Connection] = []

    def are_any_kept(self) -> bool:
        """Return whether a call can be made over a connection that is there."""
        return bool(self._kept)

    def close(self) -> None:
        """Close those that no call uses."""
        while self._kept:
            self._kept.pop().own.close()

    def exchange(self, request: Payload) -> Frame:
        """Send an encoded call and wait for its answer.

        Raises:
            ProcessDiedError: the process ended during the call, or several in a row before they took it.
            IsolationError: there is no memory for the answer.
            ProcessStartError: no process could be started.
            MemoryBudgetExceeded: there is no room for one.
        """
        began = time.monotonic_ns()
        number = os.getpid() << 32 | next(_numbers)
        attempts = 0
        while attempts < _ATTEMPTS:
            connection = self._kept_connection() if request.size < _LARGE_BYTES else None
            kept = connection is not None
            if connection is None:
                connection = _Connection(*self._queue.connect(began))
            try:
                answer = _Call(connection, self._queue, number, began, kept=kept).made(request)
            except NotRunError:  # not kept: with its traceback, it would keep the connection until a garbage collection
                connection.own.close()
                attempts += not kept  # of those that are kept many may have ended since
                continue
            except BaseException:
                connection.own.close()
                raise
            self._keep(connection, answer, kept=kept)
            self._queue.note_waited(answer.nanoseconds / 1e9)
            return answer
        raise ProcessDiedError(f"{_ATTEMPTS // 2} package processes in a row ended before they took the call")

    def _kept_connection(self) -> _Connection | None:
        busy = []
        found = None
        while found is None:
            try:
                connection = self._kept.pop()
            except IndexError:
                break
            if not connection.own.is_ours() or connection.has_ended():
                connection.own.close()
            elif connection.is_free():
                found = connection
            else:
                busy.append(connection)
        self._kept += busy
        return found

    def _keep(self, connection: _Connection, answer: Frame, *, kept: bool) -> None:
        # Where others wait the next call joins their queue: at a connection of its own it would come out of turn.
        if answer.number & frames.OTHERS_WAIT or connection.is_withdrawn or len(self._kept) >= _MOST_KEPT:
            connection.own.close()
            return
        if not kept:
            connection.record = record = self._queue.record(answer.number)
            connection.pid = 0 if record is None else record.pid
        self._kept.append(connection)


class _Call:
    """One call over one connection."""

    def __init__(self, connection: _Connection, queue: "Queue", number: int, began: int, *, kept: bool) -> None:
        self._connection = connection
        self._queue = queue
        self._number = number
        self._began = began
        self._kept = kept
        self._ticks = 0

    def made(self, request: Payload) -> Frame:
        """Return the answer; see `Connections.exchange`."""
        channel = self._connection.channel
        try:
            channel.send(frames.CALL, request, number=self._number, nanoseconds=self._began, waiting=self._wait)
            answer = self._answer()
        except frames.NoMemoryForMessageError as error:
            raise IsolationError(
                f"the answer of the package process does not fit into the memory of this process: {error}; "
                "return less, or write it to a file and return its name"
            ) from error
        except NotRunError:
            raise
        except ConnectionError as error:  # part of the call was left unread, so it was not run
            raise NotRunError("the process ended before it took the call") from error
        except (EOFError, OSError) as error:
            raise ProcessDiedError(
                f"{self._queue.describe_death(self._number)} during the call, whose effect is unknown; the next call "
                "starts a new one"
            ) from error
        except BaseException:
            self._queue.abandon(self._number)
            raise
        if answer.kind == frames.SKIPPED:
            raise NotRunError("the call was withdrawn")
        if self._ticks:
            self._connection.set_timeout(channel.socket, _MOVE_SECONDS)
        return answer

    def _answer(self) -> Frame:
        while True:
            try:
                answer = self._connection.channel.receive()
            except frames.PAUSED:
                self._wait()
                continue
            if answer.kind != frames.LOG:
                return answer
            from mempressure.package_process import logs  # where a function logs something

            logs.emit(frames.decode(answer.payload))

    def _wait(self) -> None:
        """See to a call that nothing has come back for: withdraw it, or have one process more started for it.

        Raises:
            NotRunError: it was withdrawn.
        """
        connection = self._connection
        unread = not connection.channel.receiving and connection.is_unread()
        if self._kept and unread and connection.is_idle():
            return  # the process is about to read it: on a busy machine that may take a while
        self._ticks += 1
        if self._ticks == 1:
            connection.set_timeout(connection.channel.socket, _TICK_SECONDS)
        if not unread:
            return
        if not self._kept and not self._queue.note_waiting(self._began, connection.where):
            return
        self._kept = False
        connection.is_withdrawn = True
        connection.channel.socket.shutdown(socket.SHUT_WR)
        if connection.is_unread():  # so is the end behind it, with which it is not run
            raise NotRunError("the call was withdrawn")
