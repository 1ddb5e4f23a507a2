"""A client's socket whose reads end at a deadline, however slowly the bytes arrive."""

import socket
import time

PIECE_BYTES = 16 << 10
"""The most that one read returns."""


class Stream:
    """The bytes of one connection.

    It reads the socket itself rather than through `io.BufferedReader`, whose buffer has another size in each version of
    Python (128 KiB in 3.14): a limit on what is read must not depend on that.

    Args:
        connection: the client's socket, encrypted or not.
        write_seconds: how long a client may take to receive one response.
    """

    __slots__ = ("_connection", "_deadline", "_write_seconds")

    def __init__(self, connection: socket.socket, *, write_seconds: float) -> None:
        self._connection = connection
        self._write_seconds = write_seconds
        self._deadline = 0.0

    def set_deadline(self, *, seconds: float) -> None:
        """End reads so many seconds from now."""
        self._deadline = time.monotonic() + seconds

    def receive(self) -> bytes:
        """Return the bytes that arrived, `PIECE_BYTES` at most; empty once the client or `Server.stop` ended reading.

        Raises:
            TimeoutError: the deadline passed.
            OSError: the connection failed.
        """
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._connection.settimeout(remaining)
        return self._connection.recv(PIECE_BYTES)

    def send(self, data: bytes) -> None:
        """Send all of `data`.

        Raises:
            TimeoutError: the client did not receive it in time.
            OSError: the connection failed.
        """
        self._connection.settimeout(self._write_seconds)
        self._connection.sendall(data)
