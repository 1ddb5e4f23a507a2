"""Processes that are started together and stopped together: all of them, and no others."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_SECONDS = 10.0


_begun: set[Path] = set()
"""Logs of this run: a part that is started again goes on in its log, an earlier run's is replaced."""


class StartError(Exception):
    """A process did not come up; the message holds the end of its log."""


class Process:
    """One process with a log file, in a session of its own so that Ctrl-C reaches only its starter."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab" if log in _begun else "wb") as output:
            _begun.add(log)
            self._process = subprocess.Popen(
                [*_dies_with_parent(), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environ},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether it has not ended."""
        return self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool], *, seconds: float = 30.0) -> None:
        """Wait until `ready` says so.

        Raises:
            StartError: the process ended, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise StartError(f"{self.name} ended with status {self._process.returncode}:\n{self.log_end()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} is not ready after {seconds:g} s:\n{self.log_end()}")
            time.sleep(0.05)

    def stop(self, *, number: int = signal.SIGTERM) -> int:
        """End it in order, by force after ten seconds, with whatever is left of its session; return its status."""
        if self.running:
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._kill_session()
        self._kill_session()
        return self._process.wait()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._process.wait()

    def log_end(self, lines: int = 20) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _kill_session(self) -> None:
        # Its group outlives it where it left children behind.
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


class Processes:
    """The processes of one run; leaving the `with` block stops them, the last started first."""

    def __init__(self, *, logs: Path, environ: Mapping[str, str]) -> None:
        self.logs = logs
        self._environ = dict(environ)
        self._processes: list[Process] = []

    def start(self, name: str, command: Sequence[str], *, environ: Mapping[str, str] | None = None) -> Process:
        """Start a process and keep it."""
        log = self.logs / f"{name}.log"
        process = Process(name, command, log=log, environ={**self._environ, **(environ or {})})
        self._processes.append(process)
        return process

    def ended(self) -> list[Process]:
        """Return those that have ended."""
        return [process for process in self._processes if not process.running]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._processes:
            self._processes.pop().stop()


def free_port(preferred: int = 0) -> int:
    """Return a free TCP port on loopback: the preferred one if it is, else one that the kernel chooses."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            number: int = probe.getsockname()[1]
            return number
    raise StartError("no TCP port is free on 127.0.0.1")


def _dies_with_parent() -> list[str]:
    """Return the words that have the kernel end a process when its starter is killed, where util-linux can."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
