"""Per-worker order socket: a Unix socket beside the state file, made anew where it was removed."""

import errno
import os
import selectors
import socket
from contextlib import suppress
from pathlib import Path

from mempressure.measure.descriptor import OwnDescriptor

CONNECTIONS = 16
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class OrderSocket:
    """Listens at a path.

    Args:
        path: where to listen.
        selector: reports connections that wait, as events of `listener`.
        trusted: ids of the users that may give orders; each connection's user is checked again when it is accepted.

    """

    def __init__(self, path: Path, *, selector: selectors.BaseSelector, trusted: set[int]) -> None:
        self._path = path
        self._selector = selector
        self._trusted = trusted
        self._bound = (0, 0)
        self._own: OwnDescriptor[socket.socket] | None = None

    @property
    def listener(self) -> socket.socket | None:
        """Return the listening socket; None while there is none."""
        return None if self._own is None else self._own.file

    def ensure(self) -> None:
        """Listen, again where the socket was closed, removed or replaced, or where accepting had to pause.

        Raises:
            OSError: the path cannot be bound.
        """
        self.leave_if_lost()
        if self.listener is not None and self._is_bound():
            if not self._is_watched(self.listener):
                self._selector.register(self.listener, selectors.EVENT_READ)
            return
        self.close()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            # Under its name only once it listens: a client that finds it may connect.
            new = self._path.with_suffix(".new")
            with suppress(FileNotFoundError):
                os.unlink(new)
            listener.bind(os.fspath(new))
            # Other users may connect only if some are trusted.
            os.chmod(new, 0o666 if self._trusted - {0, os.geteuid()} else 0o600)
            listener.listen(CONNECTIONS)
            os.replace(new, self._path)
            status = os.lstat(self._path)
        except OSError:
            listener.close()
            raise
        self._bound = (status.st_dev, status.st_ino)
        self._own = OwnDescriptor(listener)
        self._selector.register(listener, selectors.EVENT_READ)

    def accept(self) -> socket.socket | None:
        """Return a connection that waits; None where it is gone or no descriptor is free: then accepting pauses."""
        self.leave_if_lost()
        if self.listener is None:
            return None
        try:
            return self.listener.accept()[0]
        except OSError as error:
            # Without descriptors the event would come back at once, 100,000 times a second: wait for the next tick.
            if error.errno in _EXHAUSTED:
                self._selector.unregister(self.listener)
            return None

    def leave_if_lost(self) -> None:
        """Stop listening where others closed the socket, whose number may be another file's by now."""
        if self._own is not None and not self._own.is_ours():
            self.close()

    def close(self) -> None:
        """Stop listening."""
        if self._own is not None:
            if self._is_watched(self._own.file):
                self._selector.unregister(self._own.file)
            self._own.close()
            self._own = None

    def _is_bound(self) -> bool:
        try:
            status = os.lstat(self._path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._bound

    def _is_watched(self, listener: socket.socket) -> bool:
        return listener in self._selector.get_map()
