"""One process of several, chosen by the kernel: who holds the lock on a file."""

import fcntl
import os
from pathlib import Path


class LockFile:
    """A lock that one process at a time holds, until it lets go or ends, however it ends.

    For one thread at a time. A child that is forked meanwhile has to call `forget`, or it would hold the lock too.

    Args:
        path: of the file; made, closed to others, where it is not there. Its directory must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Kept before it is locked: a child that is forked in between must know of it.
        self._descriptor: int | None = None
        self._held = False

    def take(self) -> bool:
        """Return whether this process holds the lock, having tried to take it where nobody does; never waits.

        Raises:
            OSError: the file cannot be made or opened.
        """
        if self._held and self._is_there():
            return True
        self.release()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.forget()
            return False
        # Where the file was removed meanwhile the next process would lock another one.
        self._held = self._is_there()
        if not self._held:
            self.forget()
        return self._held

    def release(self) -> None:
        """Let go of the lock, if it is held, for forked children too."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.forget()

    def forget(self) -> None:
        """In a forked child, close what it inherited, and leave the lock to its parent."""
        descriptor, self._descriptor, self._held = self._descriptor, None, False
        if descriptor is not None:
            os.close(descriptor)

    def _is_there(self) -> bool:
        try:
            return self._descriptor is not None and os.path.samestat(os.fstat(self._descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False
