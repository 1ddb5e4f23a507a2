"""A lock file: of several processes, one at a time holds the lock, and the kernel frees it when that one ends."""

import fcntl
import os
from pathlib import Path

from mempressure.measure.descriptor import OwnDescriptor


class LockFile:
    """A lock that one process at a time holds, until it releases it or ends.

    Not thread-safe. A child forked while the lock is held has to call `forget`, or it would hold the lock too.

    Args:
        path: of the file, created with mode 0600 if missing. Its directory must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Set before the file is locked: a child that is forked in between must close it, too.
        self._own: OwnDescriptor[int] | None = None
        self._held = False

    def take(self) -> bool:
        """Take the lock if it is free, without waiting; return whether this process holds it.

        It is lost, and taken anew, where the file was removed, or others closed all descriptors, as a daemon does.

        Raises:
            OSError: the file cannot be created or opened.
        """
        if self._held and self._is_in_place():
            return True
        self.release()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._own = OwnDescriptor(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.forget()
            return False
        # If the file was removed meanwhile, the next process would create and lock another one.
        self._held = self._is_in_place()
        if not self._held:
            self.forget()
        return self._held

    def release(self) -> None:
        """Release the lock, if it is held, also for children forked meanwhile."""
        if self._own is not None and self._own.is_ours():
            fcntl.flock(self._own.number, fcntl.LOCK_UN)
        self.forget()

    def forget(self) -> None:
        """Close the inherited file in a forked child; the parent keeps the lock."""
        own, self._own, self._held = self._own, None, False
        if own is not None:
            own.close()

    def _is_in_place(self) -> bool:
        """Return whether the open file is still the one at the path."""
        if self._own is None or not self._own.is_ours():
            return False
        try:
            return os.path.samestat(os.fstat(self._own.number), os.lstat(self.path))
        except FileNotFoundError:
            return False
