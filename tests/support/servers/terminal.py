"""A command on a terminal of its own."""

import os
import pty
import signal
from collections.abc import Mapping, Sequence


class Terminal:
    """Runs a command in a session of its own, at whose terminal the test sits.

    Args:
        command: the program's path and its arguments.
        environment: whole.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.shown = b""
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.execve(command[0], command, environment)  # noqa: S606 -- there is nothing for a shell to do

    def read_until(self, text: bytes, *, times: int = 1) -> None:
        """Read until the command has shown a text so many times."""
        while self.shown.count(text) < times:
            self.shown += os.read(self._descriptor, 10_000)

    def type(self, keys: bytes) -> None:
        """Type something, or press Ctrl-C: `\\x03`."""
        os.write(self._descriptor, keys)

    def wait(self) -> int:
        """Read until the command has ended, and return its exit status."""
        try:
            while chunk := os.read(self._descriptor, 10_000):
                self.shown += chunk
        except OSError:  # as Linux says that the other end is closed
            pass
        os.close(self._descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
