"""Framing of messages between workers and package processes: pickles over a Unix stream socket.

A frame is a header, the sizes of its large buffers, the pickle (protocol 5), then the large buffers as they are,
without a copy on the sending side. A large buffer is received straight into memory of its own, mapped for it alone
and given back to the system when the last array that refers to it dies: nothing is ever reused under an array, a fork
shares nothing, and the memory counts for the process that holds it. Huge pages bring that close to a shared arena
that has to be copied out of (50 MB there and back: 28 ms, 66 ms without huge pages, 15-22 ms through a ring). A memfd
for each message, passed along and mapped privately by its receiver, took 1.1 to 1.7 times as long in alternating runs:
it saves one copy and pays for it in page faults.

Taking a frame off the socket and unpickling it are two steps, so that a pickle that fails leaves both sides in step.
"""

import mmap
import pickle
import select
import socket
import struct

TYPE_CHECKING = False  # typing's own would load typing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Buffer = bytes | bytearray | memoryview | mmap.mmap

START = 1  # worker to process: how to set up, and what to import
CALL = 2  # worker to process: module, qualified name, args, kwargs
STOP = 3  # worker to process: end, if nothing is to be done
READY = 4  # process to worker: everything is imported
RESULT = 5  # process to worker: what the function returned
RAISED = 6  # process to worker: what the function raised
REFUSED = 7  # process to worker: the function was not run, or its result could not be sent
ENDING = 8  # process to worker: it has run its hooks and ends; what failed in them
SKIPPED = 9  # process to worker: the call had been withdrawn and was not run
LOG = 10  # process to worker: a log record, before the answer
LISTENER = 11  # worker to process: send the listening socket
IN_USE = 12  # process to worker: why it does not end

OTHERS_WAIT = 1 << 32
"""Added to the number of an answer where other calls wait for the same process."""

PAUSED = (BlockingIOError, TimeoutError)
"""What a channel raises where the other end sends or takes nothing now, by the kind of its socket's timeout."""

LARGE_BYTES = 256 * 1024
"""Buffers of this size and more are sent beside the pickle; smaller ones inside it, where one copy costs less."""

MESSAGE_BYTES = 1 << 30
"""Default limit for one message: both ends have all of it in memory at once."""

_HUGE_PAGE_BYTES = 2 * 1024 * 1024
_SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
_JOIN_BELOW_BYTES = 64 * 1024
_FIRST_READ_BYTES = 4 * 1024  # kept in memory to read the beginning of a message, and all of a small one
_MOST_BUFFERS = 1 << 20
_HEADER = struct.Struct("<IIQQQ")  # kind, number of large buffers, bytes of the pickle, number, nanoseconds


class NoMemoryForMessageError(MemoryError):
    """There is no memory for a received message; it was read and discarded, so the next one can be received."""


class Payload:
    """A pickled value: the pickle and the large buffers that it refers to."""

    __slots__ = ("body", "buffers")

    def __init__(self, body: "Buffer", buffers: "Sequence[Buffer]" = ()) -> None:
        self.body = body
        self.buffers = buffers

    @property
    def size(self) -> int:
        """Its size in bytes, buffers included."""
        return len(self.body) + sum(map(len, self.buffers))


class Frame:
    """A received message: its kind (one of this module's constants) and its value, still pickled.

    Attributes:
        number: of a call its id; of an answer the number of the slot of the process that gave it.
        nanoseconds: of a call when it was made, of the monotonic clock; of an answer how long the call waited.
    """

    __slots__ = ("kind", "nanoseconds", "number", "payload")

    def __init__(self, kind: int, payload: Payload, number: int = 0, nanoseconds: int = 0) -> None:
        self.kind = kind
        self.payload = payload
        self.number = number
        self.nanoseconds = nanoseconds


def encode(value: "Any") -> Payload:
    """Pickle `value`, leaving buffers of `LARGE_BYTES` and more where they are.

    The payload refers to the memory of `value`: send it before that changes.

    Raises:
        Exception: whatever the pickling of `value` raises, of any type.
    """
    buffers: list[memoryview] = []

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < LARGE_BYTES:
            return True
        buffers.append(view)
        return False

    return Payload(pickle.dumps(value, 5, buffer_callback=stays_inside), buffers)


def decode(payload: Payload) -> "Any":
    """Unpickle a payload; arrays in it are writable unless they were read-only where they came from.

    Raises:
        Exception: whatever the unpickling raises, of any type.
    """
    return pickle.loads(payload.body, buffers=payload.buffers)  # noqa: S301 - both ends are one user's own code


class Channel:
    """One end of a connection on which both ends take turns to send one message.

    Args:
        connection: a connected Unix stream socket; the channel owns it from now on. Where it does not wait, or not any
            longer, `receive` raises one of `PAUSED`, and goes on where it was when it is called again.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._first = bytearray(_FIRST_READ_BYTES)
        self._first_view = memoryview(self._first)
        self._got = self._used = 0  # bytes in `_first`, and of those the ones that were copied on
        self._begin()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)

    def _begin(self) -> None:
        """Expect a new message, whose beginning may have come with the last one."""
        ahead = self._got - self._used
        if ahead:
            self._first[:ahead] = self._first[self._used : self._got]
        self._got, self._used = ahead, 0
        self._parts: list[bytearray | mmap.mmap] | None = None  # where the rest goes; None before its header is known
        self._filled = 0  # parts that are complete
        self._done = 0  # bytes of the part that is not
        self._to_skip = self._size = 0

    def send(
        self,
        kind: int,
        payload: Payload,
        *,
        number: int = 0,
        nanoseconds: int = 0,
        waiting: "Callable[[], None] | None" = None,
    ) -> None:
        """Send one message.

        Args:
            kind: one of this module's constants.
            payload: the value.
            number: see `Frame`.
            nanoseconds: see `Frame`.
            waiting: called each time that the other end takes nothing for the connection's timeout.

        Raises:
            OSError: the other end is closed (`BrokenPipeError`, `ConnectionResetError`).
            BlockingIOError, TimeoutError: the other end does not take it, and there is no `waiting`.
        """
        body, buffers = payload.body, payload.buffers
        head = _HEADER.pack(kind, len(buffers), len(body), number, nanoseconds)
        if buffers:
            head += struct.pack(f"<{len(buffers)}Q", *map(len, buffers))
        if len(body) < _JOIN_BELOW_BYTES:
            self._send_all(head + body, waiting)
        else:
            self._send_all(head, waiting)
            self._send_all(body, waiting)
        for buffer in buffers:
            self._send_all(buffer, waiting)

    def _send_all(self, data: "Buffer", waiting: "Callable[[], None] | None") -> None:
        # Not `sendall`, whose timeout is for all of the data: a large message may take longer than a small pause.
        done = self._send_some(data, waiting)
        if done == len(data):  # by far the most
            return
        with memoryview(data) as view:
            while done < len(view):
                with view[done:] as rest:
                    done += self._send_some(rest, waiting)

    def _send_some(self, data: "Buffer", waiting: "Callable[[], None] | None") -> int:
        while True:
            try:
                return self.socket.send(data)
            except PAUSED:
                if waiting is None:
                    raise
                waiting()

    def receive(self) -> Frame:
        """Wait for one message and take all of it off the socket.

        Raises:
            EOFError: the other end closed, after it had read everything that was sent to it.
            ConnectionResetError: the other end closed with something left unread (Linux distinguishes the two).
            NoMemoryForMessageError: there is no memory for the message.
            BlockingIOError, TimeoutError: it is not complete; call again to go on.
        """
        # One read gets all of a small message, and where log records precede an answer the beginning of the next.
        while self._got < _HEADER.size:
            self._got += self._read(self._first_view[self._got :])
        kind, count, size, number, nanoseconds = _HEADER.unpack_from(self._first)
        if self._parts is None:
            self._used = _HEADER.size
            end = _HEADER.size + size
            if not count and self._got >= end:  # by far the most
                body = bytes(self._first_view[_HEADER.size : end])
                self._used = end
                self._begin()
                return Frame(kind, Payload(body), number, nanoseconds)
            if count > _MOST_BUFFERS:
                raise ValueError(f"a message of {count} buffers, which nothing of mempressure has sent")
            self._parts = [bytearray(8 * count)]
        if self._to_skip:
            self._skip()
        self._fill()
        if len(self._parts) == 1:
            self._allocate(size, struct.unpack(f"<{count}Q", self._parts[0]))
            self._fill()
        _, whole, *buffers = self._parts
        self._begin()
        return Frame(kind, Payload(whole, buffers), number, nanoseconds)

    @property
    def receiving(self) -> bool:
        """Whether a part of a message has come and the rest has not."""
        return self._got > 0

    def _read(self, target: memoryview, flags: int = 0) -> int:
        got = self.socket.recv_into(target, 0, flags)
        if not got:
            raise EOFError("the other end of the connection has closed")
        return got

    def _fill(self) -> None:
        """Receive the parts that are not complete."""
        parts = self._parts or []
        while self._filled < len(parts):
            with memoryview(parts[self._filled]) as view:
                ahead = min(len(view) - self._done, self._got - self._used)
                if ahead:  # came with the header
                    view[self._done : self._done + ahead] = self._first_view[self._used : self._used + ahead]
                    self._used += ahead
                    self._done += ahead
                while self._done < len(view):
                    with view[self._done :] as rest:
                        # Less than all of it comes for a signal or a timeout only, on a socket that waits.
                        self._done += self._read(rest, socket.MSG_WAITALL)
            self._filled, self._done = self._filled + 1, 0

    def _allocate(self, size: int, sizes: "Sequence[int]") -> None:
        try:
            self._parts = [*(self._parts or []), *map(_allocated, (size, *sizes))]
        except (MemoryError, OSError, OverflowError):
            self._to_skip = self._size = size + sum(sizes)
            self._skip()

    def _skip(self) -> None:
        """Read and discard the rest of a message that there is no memory for."""
        ahead = min(self._to_skip, self._got - self._used)
        self._used += ahead
        self._to_skip -= ahead
        while self._to_skip:
            # Its header is needed no more: the buffer of the first read takes what is discarded.
            self._to_skip -= self._read(self._first_view[_HEADER.size : _HEADER.size + self._to_skip])
        size = self._size
        self._begin()
        raise NoMemoryForMessageError(f"no memory for {size} bytes")

    @property
    def at_end(self) -> bool:
        """Whether the other end will send nothing more, and all that it sent was received."""
        poll = select.poll()  # a socket with a timeout would wait in recv, whatever its flags
        poll.register(self.socket, select.POLLIN)
        try:
            return bool(poll.poll(0)) and self.socket.recv(1, socket.MSG_PEEK) == b""
        except OSError:  # it was reset
            return True

    def shutdown(self) -> None:
        """End the connection for both ends, also for a thread that waits at one."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already, or not connected any more

    def close(self) -> None:
        """Close this end; further calls have no effect."""
        self.socket.close()


def _allocated(size: int) -> bytearray | mmap.mmap:
    """Return writable memory of `size` bytes; a large one is a mapping, unmapped when its last reference goes."""
    if size < LARGE_BYTES:
        return bytearray(size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            pass  # a kernel without huge pages: slower, not wrong
    return memory
