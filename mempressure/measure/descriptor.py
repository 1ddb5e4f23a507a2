"""File descriptors that are kept open: whether a number still stands for the file that was opened under it.

Applications close descriptors that they have not opened: a daemon closes all of them, and the next files that it opens
are given the same numbers. What is written to, read from, polled or closed by its number alone may be another's file.
"""

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import Generic, TypeVar

_File = TypeVar("_File", bound="int | socket.socket")

Identity = tuple[int, int, str]
"""What tells an open file from all others: device, inode, and what tells files apart that share one inode."""

_IDS = ("Pid:", "eventfd-id:")


def identity_of(descriptor: int) -> Identity | None:
    """Return which file a descriptor stands for now; None where it is closed.

    Costs 2 us; 20 us for an eventfd or pidfd. Epolls cannot be told apart: poll with `select.poll`, which needs no
    descriptor.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino, "" if stat.S_IFMT(status.st_mode) else _id_of(descriptor)


class OwnDescriptor(Generic[_File]):
    """A descriptor of this process' own, as it is when this is made, and closed when this is dropped.

    Ask `is_ours` right before each use, and end it by `close`: a socket that is closed or dropped by itself closes its
    number even where that has become another's. In a forked child the number stands for the same file.

    Args:
        file: the descriptor, or a socket.

    Attributes:
        file: as given.
        number: the descriptor.

    Raises:
        OSError: it is closed.
    """

    __slots__ = ("_identity", "file", "number")

    def __init__(self, file: _File) -> None:
        self._identity = None  # where an interruption comes before the rest
        self.file = file
        self.number = file if isinstance(file, int) else file.fileno()
        self._identity = identity_of(self.number)
        if self._identity is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def is_ours(self) -> bool:
        """Return whether it is open, and stands for the file that it was made for."""
        return self._identity is not None and identity_of(self.number) == self._identity

    def close(self) -> None:
        """Close it where it is ours; where it is not, only let go of the number. May be called again."""
        ours, self._identity = self.is_ours(), None
        if isinstance(self.file, int):
            if ours:
                os.close(self.file)
        elif ours:
            self.file.close()
        else:
            self.file.detach()

    def __del__(self) -> None:
        self.close()


class WakeUp:
    """Wakes the thread that polls its reader, from any thread; for one reading thread.

    It sends datagrams without content. Should a number become another's between the check and its use, a stream has
    nothing added or taken, and a file refuses the call.

    Attributes:
        reader: the socket to poll.

    Raises:
        OSError: no descriptor is free.
    """

    def __init__(self) -> None:
        self._make()

    def send(self) -> None:
        """Wake the reading thread; it is not woken where the descriptors were closed by others."""
        with suppress(OSError):  # full: it is about to wake
            if self._writer.is_ours():
                self._writer.file.send(b"", socket.MSG_DONTWAIT)

    def clear(self) -> None:
        """Take what was sent; to be called once the reader is ready."""
        with suppress(OSError):  # nothing is left
            while self._reader.is_ours():
                self._reader.file.recvmsg(0, 0, socket.MSG_DONTWAIT)

    def is_ours(self) -> bool:
        """Return whether nothing has closed its descriptors."""
        return self._reader.is_ours() and self._writer.is_ours()

    def renew(self) -> None:
        """Make new descriptors, whose reader is another one.

        Raises:
            OSError: no descriptor is free; it then wakes no thread until it is renewed.
        """
        self.close()
        self._make()

    def close(self) -> None:
        """Close both ends."""
        self._reader.close()
        self._writer.close()

    def _make(self) -> None:
        self.reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._reader, self._writer = OwnDescriptor(self.reader), OwnDescriptor(writer)
        for end in (self.reader, writer):
            end.setblocking(False)


def _id_of(descriptor: int) -> str:
    """Return what tells a file without a type from others: an eventfd's number, the process of a pidfd."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}") as file:
            return next((line.strip() for line in file if line.startswith(_IDS)), "")
    except OSError:  # without /proc; or closed meanwhile
        return ""
