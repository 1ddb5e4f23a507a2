"""The start of package processes, and what is left to do when one has ended: reaping it, and ending what it started."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from mempressure import forks
from mempressure.errors import ProcessStartError, ProcessStartTimeoutError
from mempressure.isolation.calls import RemoteTraceback
from mempressure.isolation.generation import Generation
from mempressure.package_process import descendants, identity, interpreter
from mempressure.protocol import frames
from mempressure.protocol.addresses import SocketAddress, connect
from mempressure.protocol.frames import Channel, Frame, Payload
from mempressure.protocol.slots import control_path, start_ticks

_KILL_SECONDS = 5.0  # for a killed process to end; only one stuck in the kernel takes longer
_LISTENER_SECONDS = 1.0  # for a busy process to hand over the listening socket: its thread may wait for the GIL
_BACKLOG = 4096  # calls that wait; the kernel allows net.core.somaxconn


class Child:
    """A package process that this worker started, and a thread that reaps it.

    Attributes:
        pid: its process id.
        ended: set once it was reaped, and what it had started was killed.
        status: its exit status, negative for a signal; None until it was reaped.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", on_end: Callable[["Child"], None]) -> None:
        self.pid = process.pid
        self._ticks = start_ticks(process.pid)
        self.ended = threading.Event()
        self.status: int | None = None
        self._process = process
        self._on_end = on_end
        threading.Thread(target=self._reap, name="mempressure-reaper", daemon=True).start()

    def _reap(self) -> None:
        with suppress(ChildProcessError):  # the application reaps all children
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        # Before it is reaped: until then no other process group can have its number.
        self.kill()
        self.status = self._process.wait()
        self._on_end(self)
        self.ended.set()

    def kill(self) -> None:
        """Send SIGKILL to it and to all that it started."""
        descendants.kill_group(self.pid, self._ticks)

    def forget(self) -> None:
        """Let go of it in a forked child: it is the parent's."""
        self._process.returncode = 0  # or subprocess warns that it still runs
        self.ended.set()


def start_process(
    generation: Generation,
    number: int,
    listener: socket.socket,
    *,
    packages: tuple[str, ...],
    start: Mapping[str, Any],
    seconds: float,
    on_end: Callable[[Child], None],
) -> tuple[Child, list[tuple[str, int]]]:
    """Start a package process, and wait until it has imported everything.

    Args:
        generation: where it belongs.
        number: of a free slot.
        listener: the listening socket of the generation.
        packages: the import names that it loads.
        start: what it takes over from this worker, and what it is to import.
        seconds: limit for its start, imports included.
        on_end: called in the thread that has reaped it.

    Returns:
        The process; and by how many bytes importing the function's module, and each of its parents, made it grow.

    Raises:
        ProcessStartError: the process could not be started, or an import in it failed.
        ProcessStartTimeoutError: it did not finish its imports in time.
    """
    began = time.monotonic_ns()
    ours, process = _spawned(generation, number, listener, packages)
    channel = Channel(ours)
    try:
        child = Child(process, on_end)
    except RuntimeError as error:  # no thread to be had
        descendants.kill_group(process.pid, start_ticks(process.pid))
        process.wait()
        channel.close()
        raise ProcessStartError(f"no thread that waits for a package process can be started: {error}") from error
    try:
        answer = _started(channel, child, {**start, "packages": packages, "began": began}, seconds)
        if answer.kind != frames.READY:
            _raise_failure(child, answer.payload, packages)
        notes: list[tuple[str, int]] = frames.decode(answer.payload)
        return child, notes
    finally:
        channel.close()


def _spawned(
    generation: Generation, number: int, listener: socket.socket, packages: tuple[str, ...]
) -> "tuple[socket.socket, subprocess.Popen[bytes]]":
    """Start the interpreter; return the connection on which it waits for what to do, and the process."""
    command = interpreter.command([generation.directory, str(number)])  # raises what says why there is none
    try:
        # No fork may happen now: the child would inherit the process's end of the connection and keep it open.
        with _fork_guard:
            ours, theirs = socket.socketpair()
            _while_starting.add(ours)
            descriptors = [listener.fileno(), theirs.fileno()]
            try:
                with theirs:
                    process = subprocess.Popen(
                        [*command, *map(str, descriptors), identity.argument(packages)],
                        stdin=subprocess.DEVNULL,
                        close_fds=True,
                        pass_fds=descriptors,
                        env=interpreter.environment(),
                        start_new_session=True,  # Ctrl-C and the like go to the worker only
                    )
            except BaseException:
                ours.close()
                raise
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ProcessStartError(f"no process could be started with {sys.executable!r}: {error}") from error
    return ours, process


def _started(channel: Channel, child: Child, start: Mapping[str, Any], seconds: float) -> Frame:
    """Send what to import and how to set up the interpreter, and return the answer."""
    deadline = time.monotonic() + seconds
    names = ", ".join(start["packages"])
    try:
        channel.socket.settimeout(max(0.001, seconds))
        channel.send(frames.START, frames.encode(dict(start)))
        channel.socket.settimeout(max(0.001, deadline - time.monotonic()))
        return channel.receive()
    except TimeoutError:
        kill(child)
        raise ProcessStartTimeoutError(
            f"the package process of {names} (pid {child.pid}) did not finish importing it and module "
            f"{start['module']!r} within {seconds:g} s and was killed; see what the import waits for (a network, a "
            "lock, a slow disk), or allow it more with start_timeout= where it is declared or with "
            "MEMPRESSURE_PROCESS_START_TIMEOUT"
        ) from None
    except (EOFError, OSError) as error:
        kill(child)
        raise ProcessStartError(
            f"the package process of {names} (pid {child.pid}) {describe_status(child.status)} while it started; its "
            "standard error says more"
        ) from error
    except BaseException:
        kill(child)
        raise


def kill(child: Child) -> None:
    """Kill a process with all that it started, and wait until it has ended."""
    if not child.ended.wait(0.05):  # it may be ending by itself, with a status that says more
        child.kill()
        child.ended.wait(_KILL_SECONDS)


def _raise_failure(child: Child, payload: Payload, packages: tuple[str, ...]) -> NoReturn:
    stage, what, name, text, trace = frames.decode(payload)
    child.ended.wait(_KILL_SECONDS)
    kind = {"package": "package", "module": "module", "on_start": "the on_start function"}.get(stage, "its set-up")
    advice = "install it there, or correct the name" if name == "ModuleNotFoundError" else "its traceback says why"
    verb = "failed" if stage in ("on_start", "setup") else "cannot be imported"
    raise ProcessStartError(
        f"{kind} {what!r} {verb} in the package process of {', '.join(packages)} ({sys.executable}): {name}: {text}; "
        f"{advice}\n\n{trace}"
    ) from RemoteTraceback(trace)


def describe_status(status: int | None) -> str:
    """Return as text how a process ended, or that it is not known."""
    if status is None:
        return "ended"
    if status >= 0:
        return f"ended with exit status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"was killed by {name}" + (" (as the kernel does when memory runs out)" if status == -signal.SIGKILL else "")


def new_listener(generation: Generation) -> socket.socket:
    """Make the socket where calls wait, for the first process: whatever waited at an older one is told so at once.

    Raises:
        OSError: it cannot be made.
    """
    new = f"{generation.socket_path}.{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX)
    try:
        with suppress(FileNotFoundError):
            os.unlink(new)
        with SocketAddress(new) as address:
            listener.bind(address)
        listener.listen(_BACKLOG)
        os.replace(new, generation.socket_path)
    except OSError:
        listener.close()
        raise
    _while_starting.add(listener)
    return listener


def listener_of(generation: Generation, number: int) -> socket.socket | None:
    """Return the listening socket of a process that lives; None where it does not hand it over in time."""
    connection = socket.socket(socket.AF_UNIX)
    with connection:
        connection.settimeout(_LISTENER_SECONDS)
        try:
            connect(connection, control_path(generation.directory, number))
            Channel(connection).send(frames.LISTENER, frames.encode(None))
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        except OSError:
            return None
    if not descriptors:
        return None
    listener = socket.socket(fileno=descriptors[0])
    _while_starting.add(listener)
    return listener


_while_starting: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()
"""Sockets that this worker has while it starts a process. Calls would wait for ever at one that a child has."""

_fork_guard = threading.Lock()


def _before_fork() -> None:
    _fork_guard.acquire()


def _after_fork_in_parent() -> None:
    _fork_guard.release()


def _after_fork_in_child() -> None:
    global _fork_guard  # noqa: PLW0603 - there is one in each process
    _fork_guard = threading.Lock()  # it may be held by a thread that does not exist here
    for each in list(_while_starting):
        each.close()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
forks.in_child(_after_fork_in_child)
