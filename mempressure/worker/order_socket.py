"""Per-worker order socket and its peer check."""

import errno
import logging
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)

CONNECTIONS = 16
CONNECTION_SECONDS = 10.0
"""How long a connection may take to send its order."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class OrderSocket:
    """Listens at a path and hands on each line that somebody trusted sends, with the connection to answer on.

    Args:
        path: where to listen.
        selector: whose events are given to `handle`.
        trusted: user ids.
        take: is given the connection, then its own, and the line.
    """

    def __init__(
        self,
        path: Path,
        *,
        selector: selectors.BaseSelector,
        trusted: set[int],
        take: Callable[[socket.socket, bytes], None],
    ) -> None:
        self._path = path
        self._selector = selector
        self._trusted = trusted
        self._take = take
        self._listener: socket.socket | None = None
        self._bound = (0, 0)

    def ensure(self) -> None:
        """Listen, anew where the socket was removed or replaced, or where accepting had to pause.

        Raises:
            OSError: the path cannot be bound.
        """
        if self._listener is not None and self._is_bound():
            if self._listener not in self._watched():
                self._selector.register(self._listener, selectors.EVENT_READ)
            return
        self._close_listener()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            # Under its name only once it listens: whoever finds it may connect.
            new = self._path.with_suffix(".new")
            with suppress(FileNotFoundError):
                os.unlink(new)
            listener.bind(os.fspath(new))
            # Other users may connect only if some are trusted; who they are is checked again for each connection.
            os.chmod(new, 0o666 if self._trusted - {0, os.geteuid()} else 0o600)
            listener.listen(CONNECTIONS)
            os.replace(new, self._path)
            status = os.lstat(self._path)
        except OSError:
            listener.close()
            raise
        self._bound = (status.st_dev, status.st_ino)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ)

    def handle(self, key: selectors.SelectorKey) -> None:
        """Deal with an event of the selector that is this socket's or one of its connections'."""
        if key.fileobj is self._listener:
            self._accept()
        elif isinstance(key.fileobj, socket.socket):
            self._read(key.fileobj, key.data[0])

    def close_idle(self, now: float) -> None:
        """Close connections that did not send their order in time; `now` is monotonic."""
        for connection, (_, since) in self._connections():
            if now - since > CONNECTION_SECONDS:
                self._drop(connection)

    def close(self) -> None:
        """Stop listening and close every connection."""
        for connection, _ in self._connections():
            self._drop(connection)
        self._close_listener()

    def _is_bound(self) -> bool:
        try:
            status = os.lstat(self._path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._bound

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 -- for mypy: an event came from it
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            # Without descriptors the event would come back at once, 100,000 times a second: wait for the next tick.
            if error.errno in _EXHAUSTED:
                self._selector.unregister(self._listener)
            return
        connection.setblocking(False)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        if uid not in self._trusted:
            _log.warning(
                "order refused: uid=%d is neither root, this worker's own nor in MEMPRESSURE_TRUSTED_UIDS", uid
            )
            connection.close()
            return
        waiting = self._connections()
        if len(waiting) >= CONNECTIONS:
            # Whoever has an order sends it at once: who was silent for longest makes room.
            self._drop(min(waiting, key=lambda known: known[1][1])[0])
        self._selector.register(connection, selectors.EVENT_READ, (bytearray(), time.monotonic()))

    def _read(self, connection: socket.socket, received: bytearray) -> None:
        from mempressure.act.orders import MAX_LINE_BYTES  # json: an idle worker need not pay for it

        try:
            part = connection.recv(MAX_LINE_BYTES)
        except OSError:
            part = b""
        received += part
        if part and not received.endswith(b"\n") and len(received) <= MAX_LINE_BYTES:
            return
        if not received.endswith(b"\n") or len(received) > MAX_LINE_BYTES:
            self._drop(connection)
            return
        self._selector.unregister(connection)
        connection.settimeout(CONNECTION_SECONDS)
        self._take(connection, bytes(received))

    def _watched(self) -> list[object]:
        return [key.fileobj for key in self._selector.get_map().values()]

    def _connections(self) -> list[tuple[socket.socket, tuple[bytearray, float]]]:
        keys = list(self._selector.get_map().values())
        return [(key.fileobj, key.data) for key in keys if isinstance(key.fileobj, socket.socket) and key.data]

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()

    def _close_listener(self) -> None:
        if self._listener is not None:
            if self._listener in self._watched():
                self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
