"""The worker's side of a package process: its start, the calls sent to it, and its end.

The code that runs inside the process is `mempressure.isolation.child`; the thread that starts and reaps it is in
`mempressure.isolation.spawner`.
"""

import atexit
import contextlib
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, cast

from mempressure.config.configuration import PACKAGE_PROCESS_VARIABLE
from mempressure.errors import IsolationError, ProcessDiedError, ProcessStartError, ProcessStartTimeoutError
from mempressure.isolation import frames
from mempressure.isolation.calls import RemoteTraceback, encode_call, result_of
from mempressure.isolation.frames import Frame, Payload
from mempressure.isolation.spawner import SpawnedProcess, process_environment

STOP_SECONDS: Final = 5.0
"""Default time for a process's `on_unload` and atexit functions; then it is killed."""

START_SECONDS: Final = 60.0
"""Default time for a process's start, its imports included; then it is killed."""

_KILL_SECONDS = 5.0  # for a killed process to end; only one stuck in the kernel takes longer
_EXIT_SECONDS = 2.0  # for all package processes together when the worker ends


class ProcessGoneError(ProcessDiedError):
    """The process ended before it took the call, which can therefore be made again in another."""


class PackageProcess:
    """A process in which functions of one package run, one call at a time; callers take turns.

    The constructor returns when the process has imported everything.

    Args:
        package: the package that it runs, imported first.
        module: the module of the first function to be called, imported next.
        hooks: modules and qualified names of the functions to run in it before it ends; read at that time.
        on_death: called in the spawner's thread when it ends without having been asked to.
        start_seconds: limit for its start, imports included.
        message_limit: bytes; a larger result is refused in the process.

    Attributes:
        busy: whether a call runs, or was interrupted so that no further one can be made.

    Raises:
        ProcessStartError: the process could not be started, or an import in it failed.
        ProcessStartTimeoutError: it did not finish its imports in time.
    """

    def __init__(
        self,
        package: str,
        module: str,
        *,
        hooks: Sequence[tuple[str, str]] = (),
        on_death: Callable[[], None] | None = None,
        start_seconds: float = START_SECONDS,
        message_limit: int = frames.MESSAGE_BYTES,
    ) -> None:
        self.package = package
        self.busy = False
        self._hooks = hooks
        self._on_death = on_death
        self._message_limit = message_limit
        self._stopping = False
        self._asked_to_end = False
        self._ready = False
        self._process = SpawnedProcess(process_environment(PACKAGE_PROCESS_VARIABLE, package), self._note_end)
        deadline = time.monotonic() + start_seconds
        self._channel = self._process.start(deadline=deadline)
        _processes.add(self)
        kind, payload = self._send_start(module, deadline, start_seconds)
        if kind != frames.READY:
            self._raise_import_failure(module, payload)
        self._ready = True
        self.busy = False

    @property
    def pid(self) -> int:
        """The process id, which stays after the end of the process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended and was reaped."""
        return self._process.ended.is_set()

    @property
    def usable(self) -> bool:
        """Whether a call can be made now."""
        return not (self.busy or self._stopping or self._process.ended.is_set()) and self._process.owner == os.getpid()

    def call(
        self, module: str, qualname: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function in the process and return its result.

        Raises:
            Exception: what the function raised.
            IsolationError: the arguments or the result cannot be sent, or the function cannot be found; the process
                stays usable.
            ProcessDiedError: the process ended.
        """
        answer = self.exchange(encode_call(module, qualname, args, kwargs or {}))
        return result_of(answer, f"{module}.{qualname}")

    def exchange(self, call: Payload) -> Frame:
        """Send an encoded call and wait for its answer; the process is killed if the wait is interrupted.

        Raises:
            ProcessGoneError: the process ended before it took the call.
            ProcessDiedError: the process ended during the call.
            IsolationError: there is no memory for the answer; the process stays usable.
        """
        if not self.usable:
            raise ProcessGoneError(f"the package process of {self.package!r} (pid {self.pid}) takes no more calls")
        self.busy = True
        try:
            self._channel.send(frames.CALL, call)
            answer = self._channel.receive()
        except ConnectionError as error:  # part of the call was left unread, so it was not run
            raise ProcessGoneError(f"{self._describe_end()} before it took the call") from error
        except frames.NoMemoryForMessageError as error:
            self.busy = False
            raise IsolationError(
                f"the answer of the package process of {self.package!r} does not fit into the memory of this process: "
                f"{error}; return less, or write it to a file and return its name"
            ) from error
        except (EOFError, OSError) as error:
            raise ProcessDiedError(
                f"{self._describe_end()} during the call, whose effect is unknown; the next call starts a new one"
            ) from error
        except BaseException:
            self.kill()
            raise
        self.busy = False
        return answer

    def stop(self, *, deadline_seconds: float = STOP_SECONDS) -> list[str] | None:
        """End the process: it runs its hooks and atexit functions; SIGKILL at the deadline, or if a call is running.

        Returns:
            The failures of hooks and atexit functions as texts; None where the process has not ended even so.
        """
        asked = self.ask_to_end()
        try:
            orderly = asked and self._process.ended.wait(deadline_seconds)
            self.kill()
            if not self._process.ended.wait(_KILL_SECONDS):
                return None
            if not asked:
                return []
            if not orderly:
                return [f"its on_unload and atexit functions took more than {deadline_seconds:g} s"]
            problems = self._hook_failures()
            if self._process.status:
                problems.append(f"{self._describe_end()} before its on_unload and atexit functions were done")
            return problems
        finally:
            self.discard()

    def ask_to_end(self) -> bool:
        """Ask it to run its hooks and end, without waiting for it; return False where it cannot: a call is running."""
        asked = self.usable
        self._stopping = True  # set before it can end, so that this end is not counted as a death
        if asked:
            self._asked_to_end = True
            with contextlib.suppress(OSError):  # it has ended by itself
                self._channel.send(frames.STOP, frames.encode(list(self._hooks)))
        return self._asked_to_end

    def kill(self) -> None:
        """Send SIGKILL and return at once; does nothing in a forked child, where the process is the parent's."""
        self._stopping = True
        self._process.kill()

    def discard(self) -> None:
        """Kill the process if it still runs, and close the connection to it."""
        self.kill()
        self._channel.close()

    def _note_end(self) -> None:
        if self._ready and not self._stopping and self._on_death is not None:
            self._on_death()

    def _send_start(self, module: str, deadline: float, allowed: float) -> Frame:
        """Send what to import and how to set up the interpreter, and return the answer."""
        start = {
            "package": self.package,
            "module": module,
            "path": [
                entry for entry in cast(list[object], sys.path) if isinstance(entry, str)
            ],  # some put Path objects
            "argv": list(getattr(sys, "argv", [])),
            "pythonpath": os.environ.get("PYTHONPATH"),
            "limit": self._message_limit,
        }
        self.busy = True
        try:
            self._channel.send(frames.START, frames.encode(start))
            if self._channel.wait(deadline - time.monotonic()):
                return self._channel.receive()
            self.kill()
            self._process.ended.wait(_KILL_SECONDS)
        except (EOFError, OSError) as error:
            end = self._describe_end()
            self.discard()
            raise ProcessStartError(f"{end} while it started; its standard error says more") from error
        except BaseException:
            self.discard()
            raise
        self.discard()
        raise ProcessStartTimeoutError(
            f"the package process of {self.package!r} (pid {self.pid}) did not finish importing it and module "
            f"{module!r} within {allowed:g} s and was killed; see what the import waits for (a network, a lock, a slow "
            "disk), or allow it more with start_timeout= where it is declared or with MEMPRESSURE_PROCESS_START_TIMEOUT"
        )

    def _raise_import_failure(self, module: str, payload: Payload) -> NoReturn:
        stage, name, text, trace = frames.decode(payload)
        self._stopping = True
        self._process.ended.wait(_KILL_SECONDS)
        self.discard()
        what = f"package {self.package!r}" if stage == "package" else f"module {module!r}"
        advice = "install it there, or correct the name" if name == "ModuleNotFoundError" else "its traceback says why"
        raise ProcessStartError(
            f"{what} cannot be imported in its package process ({sys.executable}): {name}: {text}; {advice}\n\n{trace}"
        ) from RemoteTraceback(trace)

    def _describe_end(self) -> str:
        """Make sure that the process has ended, and return how it ended as text."""
        if not self._process.ended.wait(_KILL_SECONDS):  # it closed its connection, but still runs
            self.kill()
            self._process.ended.wait(_KILL_SECONDS)
        status = self._process.status
        if status is None or status >= 0:
            end = f"ended with exit status {status}"
        else:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            end = f"was killed by {name}"
            if status == -signal.SIGKILL:
                end += " (as the kernel does when memory runs out)"
        return f"the package process of {self.package!r} (pid {self.pid}) {end}"

    def _hook_failures(self) -> list[str]:
        try:
            kind, payload = self._channel.receive()
            return list(frames.decode(payload)) if kind == frames.HOOK_FAILURES else []
        except (EOFError, OSError):
            return []  # it ended without sending any, as usual


_processes: weakref.WeakSet[PackageProcess] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """End all package processes at the orderly end of the worker; otherwise the kernel kills them, without any hook."""
    deadline = time.monotonic() + _EXIT_SECONDS
    processes = [process for process in list(_processes) if not process.ended]
    for process in processes:  # all are asked first: a hook that hangs must not use up the others' time
        process.ask_to_end()
    for process in processes:
        process.stop(deadline_seconds=max(0.0, deadline - time.monotonic()))
