"""The program of a package process: sets up its interpreter, imports, serves calls, and ends with all that it started.

It is started by `mempressure.isolation.spawner`, never by hand: its arguments are the directory of its generation, the
number of its slot, and the descriptors of the listening socket and of a connection to the worker that starts it.
"""

import fcntl
import importlib
import os
import signal
import socket
import sys
import threading
import time

from mempressure.package_process import identity, interpreter, logs
from mempressure.package_process.answers import answer, description
from mempressure.package_process.functions import declared
from mempressure.package_process.serving import Service, peer_of
from mempressure.protocol import frames, slots
from mempressure.protocol.addresses import SocketAddress
from mempressure.protocol.files import LoadedFiles
from mempressure.protocol.frames import Channel, Payload

TYPE_CHECKING = False  # typing's own would load typing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from mempressure.protocol.slots import SlotRecord

_F_SETSIG = 10  # linux/fcntl.h
_PAUSE_SECONDS = 0.05  # after a connection could not be accepted


def main(arguments: "Sequence[str]") -> None:
    """Run the package process; does not return.

    Args:
        arguments: the directory of the generation, the number of the slot, and the two descriptors.
    """
    directory, number = arguments[0], int(arguments[1])
    # Ctrl-C and a service manager's SIGTERM may reach every process of the service: workers end this one.
    # SIGTERM has a handler instead of SIG_IGN: programs that a function starts must not inherit it ignored.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    end_with_workers(directory)
    slot = slots.take(directory, number)
    if slot is None:  # its worker was told that the place is free, and another was faster
        os._exit(0)
    listener, starter = (socket.socket(fileno=int(each)) for each in arguments[2:4])
    for connection in (listener, starter):
        connection.set_inheritable(False)
    status = 1
    try:
        status = _run(directory, number, slot, listener, Channel(starter))
    except BaseException as error:  # noqa: BLE001 - reported on stderr and by the exit status
        sys.stderr.write(description(error, error.__traceback__)[2])
    _flush()
    os._exit(status)


def end_with_workers(directory: str) -> None:
    """Have the kernel kill this process and its group when the last worker has ended, whatever holds the GIL.

    Every worker holds the FIFO open for writing. When the last one is gone the kernel sends the reader a signal, which
    is SIGKILL here: within 1 to 3 ms, where a watching thread waits for the GIL (measured: 6.4 s in a C call).
    """
    life = os.open(f"{directory}/life", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(life, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    try:
        if os.read(life, 1) == b"":
            os._exit(0)  # the last worker ended before the kernel was told
    except BlockingIOError:
        pass


def _run(directory: str, number: int, slot: "SlotRecord", listener: socket.socket, starter: Channel) -> int:
    starter.socket.settimeout(None)
    start = frames.decode(starter.receive().payload)
    files = LoadedFiles(directory, number)
    identity.become(start["packages"])
    refusal, notes = _prepared(start)
    if refusal is not None:
        starter.send(frames.REFUSED, refusal)
        return 1
    files.note()
    forwarding = logs.Forwarding(start["levels"])

    def run(call: Payload) -> "tuple[int, Payload]":
        forwarding.begin(service.send_log)
        try:
            return answer(call, limit=start["limit"], packages=start["packages"])
        finally:
            forwarding.end()
            _flush()

    service = Service(listener, slot, place=(directory, number), answer=run, after_call=files.note)
    control = _Control(service, directory, number)
    os.register_at_fork(after_in_child=lambda: _leave_to_parent(service, control))
    slot.ready_at = time.monotonic_ns()
    slot.ready_in = max(1, slot.ready_at - start["began"])
    try:
        starter.send(frames.READY, frames.encode(notes))
    except OSError:
        pass  # its worker has ended: others may call
    starter.close()
    channel = service.serve()
    slot.stopping = 1
    control.remove()
    service.close()
    from mempressure.package_process.pools import end_in_order

    problems = _run_hooks(start["on_unload"])
    asked = [] if channel is None else [channel]

    def tell(problem: str = "") -> None:
        _flush()
        told = frames.encode([*problems, problem] if problem else problems)
        for each in [*asked, *service.take_requests()]:  # of workers that ask at the same time, or for a surplus one
            try:
                each.send(frames.ENDING, told)
            except OSError:
                continue  # the worker has given up

    problems += end_in_order(tell)
    tell()
    return 0


def _prepared(start: "dict[str, Any]") -> "tuple[Payload | None, list[tuple[str, int]]]":
    """Set up the interpreter and import.

    Returns:
        The pickled failure, or None; and what importing the module and each of its parents added to private memory.
    """
    added: list[tuple[str, int]] = []
    stage, name = "setup", ""
    try:
        interpreter.set_up(start)
        importlib.invalidate_caches()
        for module, qualname, declared_in in start["on_start"]:
            stage, name = "on_start", f"{module}.{qualname}"
            declared(module, qualname, declared_in)()
        for name in start["packages"]:
            stage = "package"
            importlib.import_module(name)
        stage = "module"
        for name in _with_parents(start["module"]):
            before = _private_bytes()
            importlib.import_module(name)
            added.append((name, _private_bytes() - before))
    except BaseException as error:  # noqa: BLE001 - SystemExit too: all are reported to the worker
        return frames.encode((stage, name, *description(error, error.__traceback__))), []
    return None, added


def _with_parents(module: str) -> "Iterable[str]":
    parts = module.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _private_bytes() -> int:
    # Not that of `mempressure.measure.process`, which loads typing: 1.6 MiB in each package process.
    try:
        with open("/proc/self/smaps_rollup", "rb", buffering=0) as file:
            lines = file.read(4096).split(b"\n")
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(b"Private_"))


def _run_hooks(hooks: "Iterable[tuple[str, str, str]]") -> list[str]:
    """Run the `on_unload` functions, all of them, and return the tracebacks of those that failed."""
    failures = []
    for module, qualname, declared_in in hooks:
        try:
            declared(module, qualname, declared_in)()
        except BaseException as error:  # noqa: BLE001 - one failing hook must not keep the next from running
            failures.append(f"its on_unload function failed: {description(error, error.__traceback__)[2]}")
    return failures


class _Control:
    """The thread that answers workers while a call runs: they ask for the listening socket, or for the end."""

    def __init__(self, service: Service, directory: str, number: int) -> None:
        self._service = service
        self._path = slots.control_path(directory, number)
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        self._socket = socket.socket(socket.AF_UNIX)
        with SocketAddress(self._path) as address:
            self._socket.bind(address)
        self._socket.listen(64)
        threading.Thread(target=self._serve, name="mempressure-control", daemon=True).start()

    def remove(self) -> None:
        """Have workers find the socket no more."""
        try:
            os.unlink(self._path)
        except OSError:  # somebody has emptied the directory
            pass

    def close(self) -> None:
        """Close the socket, in a forked child."""
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._socket.accept()[0]
            except OSError:  # there is no descriptor left
                time.sleep(_PAUSE_SECONDS)
                continue
            try:
                self._answer(connection)
            except Exception:  # noqa: BLE001 - a worker that ended, or whatever a stranger sent: the next one is answered
                connection.close()

    def _answer(self, connection: socket.socket) -> None:
        if peer_of(connection)[1] != os.geteuid():
            connection.close()
            return
        connection.settimeout(1.0)
        channel = Channel(connection)
        request = channel.receive()
        if request.kind == frames.LISTENER:
            socket.send_fds(connection, [b"l"], [self._service.listener.fileno()])
            connection.close()
        elif request.kind == frames.STOP:
            self._service.request_end(channel, idle_for=frames.decode(request.payload))
        else:
            connection.close()


def _leave_to_parent(service: Service, control: _Control) -> None:
    """Close the connections and restore the signals in a child that a function forked."""
    service.close()
    control.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue  # closed by the function, or a pipe without a reader
