"""Starts the processes of package processes, and sees each of them end.

One thread a worker does both, and lives as long as the worker: the kernel ends a host with the *thread* that started
it (`PR_SET_PDEATHSIG`). A forked child closes what it inherited; its first host starts a thread of its own.
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

_POLL_MILLISECONDS = 50  # where the kernel cannot tell of a process' end (before Linux 5.3)


class HostProcess:
    """A process that was ordered: once started it has a connection, and `ended` is set when it was reaped.

    Args:
        environment: its environment variables.
        on_end: called in the keeping thread when it has ended, before `ended` is set.
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
        """Have the keeping thread start the process and return this end of its connection.

        Args:
            deadline: when to give up, on the monotonic clock.

        Raises:
            ProcessStartError: the system does not let a process, thread or connection be made.
            ProcessStartTimeoutError: it does not get round to it.
        """
        try:
            _keeper_of_this_process().order(self)
            in_time = self._started.wait(max(0.0, deadline - time.monotonic()))
        except (OSError, RuntimeError) as error:
            raise ProcessStartError(f"no thread that starts package processes can be had: {error}") from error
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
        self._abandoned = True  # nobody will ever talk to it
        self.kill()

    def launch(self) -> None:
        """In the keeping thread: start the process."""
        try:
            # No fork may happen now: the child would hold the host's end open, and nobody would see the host end.
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
                        process_group=0,  # Ctrl-C and the like are for the worker
                    )
                self.pid = self._process.pid
        except Exception as error:  # noqa: BLE001 - whatever it is: who ordered waits to be told
            self._error = error
            if self._channel is not None:
                self._channel.close()
        self._started.set()
        if self._abandoned:
            self.kill()

    @property
    def launched(self) -> bool:
        """Whether there is a process, running or ended."""
        return self._process is not None

    def reap(self) -> bool:
        """In the keeping thread: whether the process has ended; if so, tell whoever waits for it."""
        if self._process is None or self._process.poll() is None:
            return False
        self.status = self._process.returncode
        # Whoever owns it listens with a method of its own: let go, or both of them, and the connection's 64 KB buffer,
        # wait as a cycle for a full garbage collection.
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()
        if self._channel is not None:
            # A process that the host left behind may hold the other end open; whoever reads here must not wait for it.
            self._channel.shutdown()
            if self._abandoned:
                self._channel.close()
        self.ended.set()
        return True

    def forget(self) -> None:
        """In a forked child: close what was inherited; the process is the parent's."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.returncode = 0  # or subprocess complains that it still runs
        self.ended.set()


class _Keeper:
    """The thread that starts every host of this process, and sees each one end."""

    def __init__(self) -> None:
        self._orders: deque[HostProcess] = deque()
        self._kept: dict[HostProcess, int | None] = {}  # with a descriptor of the process, where there are such
        self._reader, self._writer = os.pipe()
        threading.Thread(target=self._run, name="mempressure-hosts", daemon=True).start()

    def order(self, process: HostProcess) -> None:
        self._orders.append(process)
        os.write(self._writer, b"\0")

    def forget(self) -> None:
        """In a forked child: the thread is not here; close what it used."""
        for process, descriptor in self._kept.items():
            process.forget()
            if descriptor is not None:
                os.close(descriptor)
        os.close(self._reader)
        os.close(self._writer)

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        while True:
            blind = None in self._kept.values()
            for ready, _ in poller.poll(_POLL_MILLISECONDS if blind else None):
                if ready == self._reader:
                    os.read(self._reader, 4096)
            while self._orders:
                self._launch(self._orders.popleft(), poller)
            for process in [process for process in self._kept if process.reap()]:
                descriptor = self._kept.pop(process)
                if descriptor is not None:
                    poller.unregister(descriptor)
                    os.close(descriptor)

    def _launch(self, process: HostProcess, poller: select.poll) -> None:
        self._kept[process] = None  # before there is anything that a fork could inherit
        process.launch()
        if not process.launched:
            del self._kept[process]
            return
        with contextlib.suppress(OSError, AttributeError):  # an old kernel, or none to spare: then it is polled
            descriptor = os.pidfd_open(process.pid)
            self._kept[process] = descriptor
            poller.register(descriptor, select.POLLIN)


_keeper: _Keeper | None = None
_keeper_lock = threading.Lock()
_fork_guard = threading.Lock()


def _keeper_of_this_process() -> _Keeper:
    global _keeper  # noqa: PLW0603 - one thread a process is the point
    with _keeper_lock:
        if _keeper is None:
            _keeper = _Keeper()
        return _keeper


def _command(descriptor: int) -> list[str]:
    # The worker's own flags (-O, -W, -X ...); -P, so that no file of the working directory shadows a module at start.
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - the only list
    return [sys.executable, *flags, "-P", "-m", "mempressure.isolation.child", str(descriptor), str(os.getpid())]


def process_environment(variable: str, package: str) -> dict[str, str]:
    """Return this process' environment for a host of `package`, such that the host finds `mempressure` itself."""
    environment = {**os.environ, variable: package}
    home = Path(__file__).resolve().parents[2]
    if home.name not in {"site-packages", "dist-packages"}:  # there the interpreter looks by itself
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = str(home) if not inherited else f"{inherited}{os.pathsep}{home}"
    return environment


def _before_fork() -> None:
    _fork_guard.acquire()


def _after_fork_in_parent() -> None:
    _fork_guard.release()


def _after_fork_in_child() -> None:
    global _keeper, _keeper_lock, _fork_guard
    # The locks may be held by threads that are not here.
    keeper, _keeper = _keeper, None
    _keeper_lock, _fork_guard = threading.Lock(), threading.Lock()
    if keeper is not None:
        keeper.forget()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
