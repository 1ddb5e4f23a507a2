"""The program of a package process: `python -m mempressure.isolation.child FD PARENT_PID`.

It imports what the first message names, then runs one function after the other until it is asked to stop, its worker
ends, or it is killed. It is started by `mempressure.isolation.spawner`, never by hand.
"""

import atexit
import importlib
import os
import select
import signal
import socket
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from mempressure.isolation import frames
from mempressure.isolation.frames import Channel, Payload

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MOST_CHARACTERS = 16_384  # of an error's text, and of its traceback


def main(arguments: list[str]) -> int:
    """Serve the worker at the other end of the socket with descriptor `arguments[0]`; its process id is `arguments[1]`.

    Returns:
        The exit status: 0 after an orderly stop, 1 when the package or the module could not be imported.
    """
    descriptor, parent = int(arguments[0]), int(arguments[1])
    # Ctrl-C and a service manager's SIGTERM may reach every process of the service: the worker ends this one.
    # SIGTERM has a handler instead of SIG_IGN: programs that a function starts must not inherit it ignored.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    die_with(parent)
    os.set_inheritable(descriptor, False)
    connection = socket.socket(fileno=descriptor)
    os.register_at_fork(after_in_child=lambda: _leave_to_parent(connection))
    threading.Thread(target=_exit_when_closed, args=(descriptor,), name="mempressure-watch", daemon=True).start()
    try:
        return _serve(Channel(connection))
    except (EOFError, ConnectionError):  # the worker has ended
        return 0


def _serve(channel: Channel) -> int:
    start = frames.decode(channel.receive().payload)
    refusal = _prepare(start)
    if refusal is not None:
        channel.send(frames.REFUSED, refusal)
        return 1
    channel.send(frames.READY, frames.encode(None))
    while True:
        try:
            kind, payload = channel.receive()
        except frames.NoMemoryForMessageError as error:
            channel.send(frames.REFUSED, frames.encode(("size", *_description(error, None))))
            continue
        if kind == frames.STOP:
            failures = _run_hooks(frames.decode(payload))
            if failures:
                channel.send(frames.HOOK_FAILURES, frames.encode(failures))
            return 0
        kind, payload = _answer(payload, limit=start["limit"])
        _flush()
        channel.send(kind, payload)
        del payload  # arguments and result may be large, and must not stay in memory until the next call


def _prepare(start: dict[str, Any]) -> Payload | None:
    """Set up this interpreter like the worker's and import; return the pickled failure, None where there is none."""
    if start["pythonpath"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = start["pythonpath"]
    sys.argv[:] = start["argv"]
    sys.path[:] = start["path"]
    importlib.invalidate_caches()
    for stage in ("package", "module"):
        try:
            importlib.import_module(start[stage])
        except BaseException as error:  # noqa: BLE001 - SystemExit too: all are reported to the worker
            return frames.encode((stage, *_description(error, error.__traceback__)))
    return None


def _answer(call: Payload, *, limit: int) -> tuple[int, Payload]:
    stage = "arguments"
    try:
        module, qualname, arguments, keywords = frames.decode(call)
        stage = "function"
        function = _resolved(module, qualname)
        stage = "body"
        result = function(*arguments, **keywords)
        stage = "result"
        payload = frames.encode(result)
    except BaseException as error:  # noqa: BLE001 - a SystemExit in a function must not end its package's process
        # Without the frame of this function, which says nothing to the reader.
        trace = error.__traceback__.tb_next if stage == "body" and error.__traceback__ else error.__traceback__
        description = _description(error, trace)
        if stage != "body":
            return frames.REFUSED, frames.encode((stage, *description))
        from mempressure.isolation.exceptions import pickled

        return frames.RAISED, frames.encode((pickled(error, limit=limit), *description))
    if payload.size > limit:
        return frames.REFUSED, frames.encode(("limit", str(payload.size), str(limit), ""))
    return frames.RESULT, payload


def _resolved(module: str, qualname: str) -> Any:
    function = importlib.import_module(module)
    for name in qualname.split("."):
        function = getattr(function, name)
    return function


def _description(error: BaseException, trace: TracebackType | None) -> tuple[str, str, str]:
    """Return type, text and traceback of an error, each as far as its own methods allow."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - a broken __str__ must not hide the error
        text = "<its __str__ failed>"
    try:
        lines = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:  # noqa: BLE001 - likewise for its causes and notes
        lines = "".join(traceback.format_tb(trace)) + f"{name}: {text}\n"
    return name, _shortened(text), _shortened(lines)


def _shortened(text: str) -> str:
    """Return the beginning and the end of a long text: the last line of a traceback says what happened."""
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = _MOST_CHARACTERS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _run_hooks(hooks: list[tuple[str, str]]) -> list[str]:
    """Run the `on_unload` functions, all of them, and return the tracebacks of those that failed."""
    failures = []
    for module, qualname in hooks:
        try:
            _resolved(module, qualname)()
        except BaseException as error:  # noqa: BLE001 - one failing hook must not keep the next from running
            failures.append(_description(error, error.__traceback__)[2])
    return failures


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends, even while a call holds the GIL.

    Args:
        parent: the process id of the worker; where that has ended already this process exits.
    """
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        return  # not Linux, or no ctypes: the watching thread alone has to notice
    if os.getppid() != parent:  # it ended before the call above
        os._exit(0)


def _exit_when_closed(descriptor: int) -> None:
    """End this process when the other end of the socket closes; reads nothing from it."""
    poller = select.poll()
    poller.register(descriptor, 0)  # POLLHUP is always reported
    poller.poll()
    os._exit(0)


def _leave_to_parent(connection: socket.socket) -> None:
    """Close the connection and restore the signals in a child that a function forked."""
    connection.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue  # closed by the function, or a pipe without a reader


def _run() -> None:
    status = 1
    try:
        status = main(sys.argv[1:])
    except BaseException:  # noqa: BLE001 - reported on stderr and by the exit status
        traceback.print_exc()
    # An orderly end that neither waits for threads that a function left behind nor tears modules down.
    atexit._run_exitfuncs()  # noqa: SLF001 - os._exit alone would skip the libraries' exit functions
    _flush()
    os._exit(status)


if __name__ == "__main__":
    _run()
