"""Addresses of Unix sockets with a path of any length."""

import os
import socket

_MOST_BYTES = 107  # of sockaddr_un.sun_path, without its end


class SocketAddress:
    """A path that sockets can be bound and connected to, for the length of a `with` block.

    A long path is replaced by one through a descriptor of its directory.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory: int | None = None

    def __enter__(self) -> str:
        """Return the address."""
        if len(os.fsencode(self._path)) <= _MOST_BYTES:
            return self._path
        folder, name = os.path.split(self._path)
        self._directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._directory}/{name}"

    def __exit__(self, *_: object) -> None:
        """Close the descriptor."""
        if self._directory is not None:
            os.close(self._directory)


def socket_inode(path: str) -> int:
    """Return what tells the socket at a path from one that replaces it, 0 where there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def connect(connection: socket.socket, path: str) -> None:
    """Connect a socket to a path.

    Raises:
        OSError: nothing listens there.
    """
    with SocketAddress(path) as address:
        connection.connect(address)
