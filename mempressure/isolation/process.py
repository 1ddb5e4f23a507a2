"""Package processes as a worker sees them: processes of their own in which isolated functions run.

Hosts are started by one thread that lives as long as the worker, since the kernel ends them with the *thread* that
started them; the same thread sees each of them end and reaps it. A forked child closes what it inherited and starts
hosts of its own.
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
from mempressure.isolation.spawner import HostProcess, process_environment

STOP_SECONDS: Final = 5.0
"""What a host's `on_unload` and atexit functions may take before it is killed, unless the caller says otherwise."""

START_SECONDS: Final = 60.0
"""What a host's start may take, its imports included, unless the caller says otherwise."""

_KILL_SECONDS = 5.0  # for a killed process to be gone; only one stuck in the kernel takes longer
_EXIT_SECONDS = 2.0  # for all hosts together when the worker ends


class HostGoneError(ProcessDiedError):
    """A host had ended before it took the call, which therefore may be made again on another."""


class PackageProcess:
    """One process in which functions of one package run, one call at a time: callers take turns.

    The constructor returns when the process has imported everything.

    Args:
        package: the package it is for, imported first.
        module: the module of the first function to be called.
        hooks: module and qualified name of the functions to run in it before it ends; read when that time comes.
        on_death: called, in a thread of its own, when it ends without having been asked to.
        start_seconds: what its start may take, imports included.
        message_limit: bytes; a larger result is refused in the process.

    Raises:
        ProcessStartError: the process could not be started, or an import in it failed.
        ProcessStartTimeoutError: it did not finish in time.
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
        self.busy = False  # also after a call that was interrupted: then nothing can be said about the stream
        self._hooks = hooks
        self._on_death = on_death
        self._message_limit = message_limit
        self._stopping = False
        self._asked_to_end = False
        self._ready = False
        self._process = HostProcess(process_environment(PACKAGE_PROCESS_VARIABLE, package), self._note_end)
        deadline = time.monotonic() + start_seconds
        self._channel = self._process.start(deadline=deadline)
        _hosts.add(self)
        kind, payload = self._greet(module, deadline, start_seconds)
        if kind != frames.READY:
            self._refuse(module, payload)
        self._ready = True
        self.busy = False

    @property
    def pid(self) -> int:
        """The process id; once the process has ended, what it was."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is gone, and reaped."""
        return self._process.ended.is_set()

    @property
    def usable(self) -> bool:
        """Whether a call may be made now, by whoever's turn it is."""
        return not (self.busy or self._stopping or self._process.ended.is_set()) and self._process.owner == os.getpid()

    def call(
        self, module: str, qualname: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function in the host and return its result.

        Raises:
            Exception: what the function raised.
            IsolationError: arguments, result or function cannot travel; the host stays usable.
            ProcessDiedError: the host ended.
        """
        answer = self.exchange(encode_call(module, qualname, args, kwargs or {}))
        return result_of(answer, f"{module}.{qualname}")

    def exchange(self, call: Payload) -> Frame:
        """Send an encoded call and wait for its answer; the host is killed if the wait is interrupted.

        Raises:
            HostGoneError: the host had ended before it took the call.
            ProcessDiedError: the host ended during the call.
            IsolationError: there is no memory for the answer; the host stays usable.
        """
        if not self.usable:
            raise HostGoneError(f"the host of {self.package!r} (process {self.pid}) cannot take calls any more")
        self.busy = True
        try:
            self._channel.send(frames.CALL, call)
            answer = self._channel.receive()
        except ConnectionError as error:  # part of the call was left unread, hence nothing of it was run
            raise HostGoneError(f"{self._death()} before it took the call") from error
        except frames.NoMemoryForMessageError as error:
            self.busy = False
            raise IsolationError(
                f"the answer of the host of package {self.package!r} does not fit into this process: {error}; return "
                "less, or write it to a file and return its name"
            ) from error
        except (EOFError, OSError) as error:
            raise ProcessDiedError(
                f"{self._death()} during the call, whose effect is unknown; the next call gets a new host"
            ) from error
        except BaseException:
            self.kill()
            raise
        self.busy = False
        return answer

    def stop(self, *, deadline_seconds: float = STOP_SECONDS) -> list[str] | None:
        """End the process: its hooks and atexit functions first, SIGKILL at the deadline or if a call is running.

        Returns:
            What went wrong with the hooks, a text each; None where the process is not gone even so.
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
            problems = self._last_words()
            if self._process.status:
                problems.append(f"{self._death()} before its on_unload and atexit functions were through")
            return problems
        finally:
            self.discard()

    def ask_to_end(self) -> bool:
        """Have it run its hooks and end, without waiting for that; return False where it cannot: a call is running."""
        asked = self.usable
        self._stopping = True  # before it can end: an end that was asked for is no death
        if asked:
            self._asked_to_end = True
            with contextlib.suppress(OSError):  # it has ended by itself
                self._channel.send(frames.STOP, frames.encode(list(self._hooks)))
        return self._asked_to_end

    def kill(self) -> None:
        """Send SIGKILL and return at once; the host of another worker (before a fork) is left alone."""
        self._stopping = True
        self._process.kill()

    def discard(self) -> None:
        """Kill what may be left of the process and close its connection."""
        self.kill()
        self._channel.close()

    def _note_end(self) -> None:
        if self._ready and not self._stopping and self._on_death is not None:
            self._on_death()

    def _greet(self, module: str, deadline: float, allowed: float) -> Frame:
        """Tell the process what to import and return its answer."""
        greeting = {
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
            self._channel.send(frames.START, frames.encode(greeting))
            if self._channel.wait(deadline - time.monotonic()):
                return self._channel.receive()
            self.kill()
            self._process.ended.wait(_KILL_SECONDS)
        except (EOFError, OSError) as error:
            death = self._death()
            self.discard()
            raise ProcessStartError(f"{death} while it started; its standard error says more") from error
        except BaseException:
            self.discard()
            raise
        self.discard()
        raise ProcessStartTimeoutError(
            f"the host of package {self.package!r} (process {self.pid}) did not finish importing it and module "
            f"{module!r} within {allowed:g} s and was killed; see what the import waits for (a network, a lock, a slow "
            "disk), or allow it more with start_timeout= where it is declared or with MEMPRESSURE_PROCESS_START_TIMEOUT"
        )

    def _refuse(self, module: str, payload: Payload) -> NoReturn:
        stage, name, text, trace = frames.decode(payload)
        self._stopping = True
        self._process.ended.wait(_KILL_SECONDS)
        self.discard()
        what = f"package {self.package!r}" if stage == "package" else f"module {module!r}"
        advice = "install it there, or correct the name" if name == "ModuleNotFoundError" else "its traceback says why"
        raise ProcessStartError(
            f"{what} cannot be imported in its package process ({sys.executable}): {name}: {text}; {advice}\n\n{trace}"
        ) from RemoteTraceback(trace)

    def _death(self) -> str:
        """Make sure that the process is gone and say how it went."""
        if not self._process.ended.wait(_KILL_SECONDS):  # it closed its connection, yet lives
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
        return f"the host of package {self.package!r} (process {self.pid}) {end}"

    def _last_words(self) -> list[str]:
        try:
            kind, payload = self._channel.receive()
            return list(frames.decode(payload)) if kind == frames.LAST_WORDS else []
        except (EOFError, OSError):
            return []  # the usual: nothing went wrong


_hosts: weakref.WeakSet[PackageProcess] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """End what still runs when the worker ends in an orderly way; else the kernel does, without any hook."""
    deadline = time.monotonic() + _EXIT_SECONDS
    hosts = [host for host in list(_hosts) if not host.ended]
    for host in hosts:  # all at once: a hook that hangs must not take the others' time
        host.ask_to_end()
    for host in hosts:
        host.stop(deadline_seconds=max(0.0, deadline - time.monotonic()))
