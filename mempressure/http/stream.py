"""A client's socket as a file whose reads end in time."""

import io
import socket
import time
from typing import Any


class RequestTooLargeError(OSError):
    """A client sent more than it is allowed."""


class Stream(io.RawIOBase):
    """A socket whose reads end at a deadline, however slowly the bytes drip in, and after a number of bytes.

    Attributes:
        ended: whether the client, or the server's `stop`, ended the reading.
    """

    def __init__(self, connection: socket.socket, *, write_seconds: float) -> None:
        self._connection = connection
        self._write_seconds = write_seconds
        self._deadline = 0.0
        self._allowance = 0
        self.ended = False

    def expect(self, *, seconds: float, size: int) -> None:
        """Allow reading for so long from now, and so many bytes."""
        self._deadline = time.monotonic() + seconds
        self._allowance = size

    def allow(self, size: int) -> None:
        """Allow so many bytes more, until the same deadline."""
        self._allowance += size

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has arrived into a buffer, and return how many bytes that are; 0 at the end."""
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        if self._allowance <= 0:
            raise RequestTooLargeError
        self._connection.settimeout(remaining)
        count = self._connection.recv_into(buffer)
        self._allowance -= count
        self.ended = count == 0
        return count

    def write(self, data: Any) -> int:
        """Send everything, and return how many bytes that are."""
        self._connection.settimeout(self._write_seconds)
        self._connection.sendall(data)
        return len(data)
