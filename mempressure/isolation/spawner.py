"""The spawner: one thread of a worker that starts its package processes and reaps them.

It lives as long as the worker: the kernel kills a package process when the *thread* that started it ends
(`PR_SET_PDEATHSIG`). A forked child closes what it inherited, and has a spawner of its own from its first start on.
"""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from mempressure.errors import ProcessStartError, ProcessStartTimeoutError
from mempressure.isolation.frames import Channel

_POLL_MILLISECONDS = 50  # between looks for ended processes, where there are no pidfds (before Linux 5.3)


class SpawnedProcess:
    """A child process that the spawner starts and reaps, with a socket to it.

    Args:
        environment: its environment variables.
        on_end: called in the spawner's thread when it has ended, before `ended` is set.

    Attributes:
        ended: set once the process was reaped.
        owner: the id of the process whose child it is.
        pid: its process id, 0 before it was started.
        status: its exit status, negative for a signal; None until it was reaped.
    """

    def __init__(self, environment: Mapping[str, str], on_end: Callable[[], None]) -> None:
        self.environment = environment
        self.ended = threading.Event()
        self.owner = os.getpid()
        self.pid = 0
        self.status: int | None = None
        self._on_end: Callable[[], None] | None = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._started = threading.Event()
        self._abandoned = False
        self._error: BaseException | None = None

    def start(self, *, deadline: float) -> Channel:
        """Have the spawner start the process, and return this end of the connection to it.

        Args:
            deadline: when to give up, in seconds of the monotonic clock.

        Raises:
            ProcessStartError: the system lets no process, thread or socket be created.
            ProcessStartTimeoutError: the process was not started by the deadline.
        """
        try:
            _own_spawner().request(self)
            in_time = self._started.wait(max(0.0, deadline - time.monotonic()))
        except (OSError, RuntimeError) as error:
            raise ProcessStartError(f"the thread that starts package processes cannot be started: {error}") from error
        except BaseException:
            self._abandon()
            raise
        if not in_time:
            self._abandon()
            raise ProcessStartTimeoutError(
                f"no process could be started with {sys.executable!r} in time; see whether the file system it is on "
                "answers, and whether another start hangs"
            )
        if self._channel is None or self._process is None:
            raise ProcessStartError(f"no process could be started with {sys.executable!r}: {self._error}")
        return self._channel

    def kill(self) -> None:
        """Send SIGKILL and return at once; the process of another worker (before a fork) is left alone."""
        if self._process is not None and self.owner == os.getpid():
            self._process.kill()  # nothing is sent to a process that was reaped

    def _abandon(self) -> None:
        self._abandoned = True  # its caller has given up: the spawner kills it where it starts all the same
        self.kill()

    def launch(self) -> None:
        """Start the process; called in the spawner's thread."""
        try:
            # No fork may happen now: the child would inherit the process's end of the socket and keep it open.
            with _fork_guard:
                ours, theirs = socket.socketpair()
                self._channel = Channel(ours)
                with theirs:
                    self._process = subprocess.Popen(
                        _command(theirs.fileno()),
                        stdin=subprocess.DEVNULL,
                        close_fds=True,
                        pass_fds=[theirs.fileno()],
                        env=self.environment,
                        process_group=0,  # Ctrl-C and the like go to the worker only
                    )
                self.pid = self._process.pid
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits in `start`
            self._error = error
            if self._channel is not None:
                self._channel.close()
        self._started.set()
        if self._abandoned:
            self.kill()

    @property
    def launched(self) -> bool:
        """Whether the process was started; it may have ended since."""
        return self._process is not None

    def reap(self) -> bool:
        """Reap the process if it has ended, and return whether it has; called in the spawner's thread."""
        if self._process is None or self._process.poll() is None:
            return False
        self.status = self._process.returncode
        # `on_end` is a method of the object that owns this one: dropped, or both, and the connection's buffer of 64 KB,
        # would be a cycle that only a full garbage collection frees.
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()
        if self._channel is not None:
            # A process that it left behind may hold the other end open; a thread that reads here must not wait for it.
            self._channel.shutdown()
            if self._abandoned:
                self._channel.close()
        self.ended.set()
        return True

    def forget(self) -> None:
        """Close what a forked child inherited: the process is the parent's."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.returncode = 0  # or subprocess warns that it still runs
        self.ended.set()


class _Spawner:
    """The thread that starts this process's package processes and reaps them."""

    def __init__(self) -> None:
        self._requests: deque[SpawnedProcess] = deque()
        self._processes: dict[SpawnedProcess, int | None] = {}  # to their pidfds, None where there is none
        self._reader, self._writer = os.pipe()
        threading.Thread(target=self._run, name="mempressure-spawner", daemon=True).start()

    def request(self, process: SpawnedProcess) -> None:
        """Have the thread start a process."""
        self._requests.append(process)
        os.write(self._writer, b"\0")

    def forget(self) -> None:
        """Close what a forked child inherited: the thread does not exist there."""
        for process, descriptor in self._processes.items():
            process.forget()
            if descriptor is not None:
                os.close(descriptor)
        os.close(self._reader)
        os.close(self._writer)

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        while True:
            polled = None in self._processes.values()
            for ready, _ in poller.poll(_POLL_MILLISECONDS if polled else None):
                if ready == self._reader:
                    os.read(self._reader, 4096)
            while self._requests:
                self._launch(self._requests.popleft(), poller)
            for process in [process for process in self._processes if process.reap()]:
                descriptor = self._processes.pop(process)
                if descriptor is not None:
                    poller.unregister(descriptor)
                    os.close(descriptor)

    def _launch(self, process: SpawnedProcess, poller: select.poll) -> None:
        self._processes[process] = None  # before there is a socket that a fork could inherit
        process.launch()
        if not process.launched:
            del self._processes[process]
            return
        with contextlib.suppress(OSError, AttributeError):  # an old kernel, or no descriptor left: then it is polled
            descriptor = os.pidfd_open(process.pid)
            self._processes[process] = descriptor
            poller.register(descriptor, select.POLLIN)


_spawner: _Spawner | None = None
_spawner_lock = threading.Lock()
_fork_guard = threading.Lock()


def _own_spawner() -> _Spawner:
    global _spawner  # noqa: PLW0603 - there is one in each process
    with _spawner_lock:
        if _spawner is None:
            _spawner = _Spawner()
        return _spawner


def _command(descriptor: int) -> list[str]:
    # The worker's own flags (-O, -W, -X ...); -P, so that no file of the working directory shadows a module at start.
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - no public function lists them
    return [sys.executable, *flags, "-P", "-m", "mempressure.isolation.child", str(descriptor), str(os.getpid())]


def process_environment(variable: str, package: str) -> dict[str, str]:
    """Return the environment for a child process that works for `package`.

    It is this process's own, with `variable` set to the package's name, and `PYTHONPATH` such that `mempressure` itself
    can be imported.
    """
    environment = {**os.environ, variable: package}
    home = Path(__file__).resolve().parents[2]
    if home.name not in {"site-packages", "dist-packages"}:  # the interpreter searches those anyway
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = str(home) if not inherited else f"{inherited}{os.pathsep}{home}"
    return environment


def _before_fork() -> None:
    _fork_guard.acquire()


def _after_fork_in_parent() -> None:
    _fork_guard.release()


def _after_fork_in_child() -> None:
    global _spawner, _spawner_lock, _fork_guard
    # The locks may be held by threads that do not exist here.
    spawner, _spawner = _spawner, None
    _spawner_lock, _fork_guard = threading.Lock(), threading.Lock()
    if spawner is not None:
        spawner.forget()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
