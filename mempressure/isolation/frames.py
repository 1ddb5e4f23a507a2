"""Framing of messages between a worker and its package processes: pickles over a Unix stream socket.

A frame is a header, the sizes of its large buffers, the pickle (protocol 5), then the large buffers as they are,
without a copy on the sending side. A large buffer is received straight into memory of its own, mapped for it alone
and given back to the system when the last array that refers to it dies: nothing is ever reused under an array, a fork
shares nothing, and the memory counts for the process that holds it. Huge pages bring that close to a shared arena
that has to be copied out of (50 MB there and back: 28 ms, 66 ms without huge pages, 15-22 ms through a ring). A memfd
for each message, passed along and mapped privately by its receiver, took 1.1 to 1.7 times as long in alternating runs:
it saves one copy and pays for it in page faults.

Taking a frame off the socket and unpickling it are two steps, so that a pickle that fails leaves both sides in step.
"""

import contextlib
import mmap
import pickle
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

START: Final = 1  # worker to process: what to import
CALL: Final = 2  # worker to process: module, qualified name, args, kwargs
STOP: Final = 3  # worker to process: the hooks to run before ending
READY: Final = 4  # process to worker: everything is imported
RESULT: Final = 5  # process to worker: what the function returned
RAISED: Final = 6  # process to worker: what the function raised
REFUSED: Final = 7  # process to worker: the function was not run, or its result could not be sent
HOOK_FAILURES: Final = 8  # process to worker: the hooks that failed, right before it ends

LARGE_BYTES: Final = 256 * 1024
"""Buffers of this size and more are sent beside the pickle; smaller ones inside it, where one copy costs less."""

_HUGE_PAGE_BYTES: Final = 2 * 1024 * 1024
_SOCKET_BUFFER_BYTES: Final = 4 * 1024 * 1024
_JOIN_BELOW_BYTES: Final = 64 * 1024
_FIRST_READ_BYTES: Final = 4 * 1024
"""What a channel keeps in memory to read the beginning of a message, and all of a small one."""
_HEADER: Final = struct.Struct("<IIQ")  # kind, number of large buffers, bytes of the pickle

MESSAGE_BYTES: Final = 1 << 30
"""Default limit for one message: both ends have all of it in memory at once."""

Buffer = bytes | bytearray | memoryview | mmap.mmap


class NoMemoryForMessageError(MemoryError):
    """There is no memory for a received message; it was read and discarded, so the next one can be received."""


class Payload(NamedTuple):
    """A pickled value: the pickle and the large buffers that it refers to."""

    body: Buffer
    buffers: Sequence[Buffer] = ()

    @property
    def size(self) -> int:
        """Its size in bytes, buffers included."""
        return len(self.body) + sum(map(len, self.buffers))


class Frame(NamedTuple):
    """A received message: its kind (one of this module's constants) and its value, still pickled."""

    kind: int
    payload: Payload


def encode(value: Any) -> Payload:
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


def decode(payload: Payload) -> Any:
    """Unpickle a payload; arrays in it are writable unless they were read-only where they came from.

    Raises:
        Exception: whatever the unpickling raises, of any type.
    """
    return pickle.loads(payload.body, buffers=payload.buffers)  # noqa: S301 - both ends are one user's own code


class Channel:
    """One end of a connection on which both ends take turns to send one message.

    Args:
        connection: a connected Unix stream socket, in blocking mode; the channel owns it from now on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._first = bytearray(_FIRST_READ_BYTES)
        self._first_view = memoryview(self._first)
        self._unread = self._first_view[:0]  # of the message being received
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)

    def send(self, kind: int, payload: Payload) -> None:
        """Send one message.

        Raises:
            OSError: the other end is closed (`BrokenPipeError`, `ConnectionResetError`).
        """
        body, buffers = payload
        head = _HEADER.pack(kind, len(buffers), len(body))
        if buffers:
            head += struct.pack(f"<{len(buffers)}Q", *map(len, buffers))
        if len(body) < _JOIN_BELOW_BYTES:
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head)
            self._socket.sendall(body)
        for buffer in buffers:
            self._socket.sendall(buffer)

    def receive(self) -> Frame:
        """Wait for one message and take all of it off the socket.

        Raises:
            EOFError: the other end closed, after it had read everything that was sent to it.
            ConnectionResetError: the other end closed with something left unread (Linux distinguishes the two).
            NoMemoryForMessageError: there is no memory for the message.
        """
        # Since the ends take turns, only this message can be in the socket: one read gets all of a small one.
        got = self._socket.recv_into(self._first)
        while 0 < got < _HEADER.size:
            more = self._socket.recv_into(self._first_view[got:])
            got = got + more if more else 0
        if not got:
            raise EOFError("the other end of the connection has closed")
        kind, count, size = _HEADER.unpack_from(self._first)
        self._unread = self._first_view[_HEADER.size : got]
        sizes = struct.unpack(f"<{count}Q", self._exactly(bytearray(8 * count))) if count else ()
        try:
            memory = [_allocate(each) for each in (size, *sizes)]
        except (MemoryError, OSError, OverflowError) as error:
            total = size + sum(sizes)
            self._skip(total)
            raise NoMemoryForMessageError(f"no memory for {total} bytes") from error
        body, *buffers = map(self._exactly, memory)
        return Frame(kind, Payload(body, buffers))

    def _exactly(self, target: bytearray | mmap.mmap) -> bytearray | mmap.mmap:
        with memoryview(target) as view:
            done = min(len(view), len(self._unread))
            view[:done] = self._unread[:done]
            self._unread = self._unread[done:]
            while done < len(view):
                with view[done:] as rest:
                    got = self._socket.recv_into(rest, 0, socket.MSG_WAITALL)  # less only for a signal, or at the end
                if not got:
                    raise EOFError("the other end of the connection has closed")
                done += got
        return target

    def _skip(self, size: int) -> None:
        left = size - len(self._unread)
        while left:
            got = self._socket.recv_into(self._first, min(left, len(self._first)))
            if not got:
                raise EOFError("the other end of the connection has closed")
            left -= got

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`; return whether a message has begun to arrive or the other end has closed.

        `receive` may still have to wait for the rest of that message.
        """
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(max(0.0, seconds) * 1000))

    def shutdown(self) -> None:
        """Make a thread that waits in `receive` return, as if the other end had closed."""
        with contextlib.suppress(OSError):  # it is closed already, or not connected any more
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end; further calls have no effect."""
        self._socket.close()


def _allocate(size: int) -> bytearray | mmap.mmap:
    """Return writable memory of `size` bytes; a large one is a mapping, unmapped when its last reference goes."""
    if size < LARGE_BYTES:
        return bytearray(size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages: slower, not wrong
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
