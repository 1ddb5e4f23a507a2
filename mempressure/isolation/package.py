"""Isolated packages: each lives in a process of its own while it is used; unloading it ends that process."""

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mempressure.errors import IsolationError, ProcessDiedError, ProcessStartTimeoutError
from mempressure.isolation.calls import encode_call, hook_name, result_of
from mempressure.isolation.counters import Counters
from mempressure.isolation.frames import MESSAGE_BYTES, Frame, Payload
from mempressure.isolation.process import START_SECONDS, STOP_SECONDS, PackageProcess, ProcessGoneError
from mempressure.measure.process import private_bytes
from mempressure.measure.reading import CLOCK_SET_BACK_SECONDS
from mempressure.packages.reservation import Reservation, Reserve

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_ATTEMPTS = 6  # of one call: each process that ended before it took the call costs two


class IsolatedPackage(Counters):
    """A package that lives in a process of its own while it is used.

    Calls queue, and run one at a time. A call starts the process where none runs; the process is never ended during a
    call. Every attribute may be read at any time from any thread. A forked child begins with counters at 0.

    Args:
        name: the package's import name.
        timeout: seconds without a call after which the package is idle; only stored here, for the unloading policy.
        start_timeout: seconds that starting the process may take, imports included.
        priority: of two candidates the lower is unloaded first; only stored here.
        keep_loaded: keep it loaded unless the pressure is high; only stored here.
        message_limit: largest size of a call's arguments, and of its result, in bytes.
        on_unload: a function of a module, run in the process before it ends in an orderly way.
        on_change: called after a process was started and after the package was unloaded, in the thread that did it.
        reserve: called before a process is started, to reserve the memory that it is known to need.
        clock: returns the time in Unix seconds.
        measure: returns the private bytes of a process id; raises `OSError` where there is no such process.
    """

    def __init__(  # noqa: PLR0913 - options by keyword
        self,
        name: str,
        *,
        timeout: float = 60.0,
        start_timeout: float = START_SECONDS,
        priority: int = 0,
        keep_loaded: bool = False,
        message_limit: int = MESSAGE_BYTES,
        on_unload: Callable[[], object] | None = None,
        on_change: Callable[[], None] | None = None,
        reserve: Reserve | None = None,
        clock: Callable[[], float] = time.time,
        measure: Callable[[int], int] = private_bytes,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.start_timeout = start_timeout
        self.priority = priority
        self.keep_loaded = keep_loaded
        self.message_limit = message_limit
        self.on_unload = on_unload
        self.on_change = on_change
        self._reserve = reserve
        self._hooks = [] if on_unload is None else [hook_name(on_unload)]
        self._clock = clock
        self._measure = measure
        self.after_fork()
        _packages.add(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child: the process is the parent's, and the parent's threads do not exist here."""
        self.reset_counters()
        self._reservation: Reservation | None = None
        self._process: PackageProcess | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._calling_thread: int | None = None
        self._call_lock = threading.Lock()  # held while a process is started or runs a call

    @property
    def process_pid(self) -> int | None:
        """The id of the package's process, None where none runs."""
        process = self._process
        return None if process is None or process.ended else process.pid

    def call(
        self, module: str, qualname: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function of an importable module in the package's process and return its result.

        Raises:
            Exception: what the function raised, of its own type.
            IsolationError: the arguments or the result cannot be sent, or the function cannot be found.
            ProcessStartError: the process failed to start, or the package or the module cannot be imported in it.
            ProcessStartTimeoutError: the start took more than `start_timeout`, here or in the call waited for.
            ProcessDiedError: the process ended during the call.
            MemoryBudgetExceeded: there is not enough memory for the process.
        """
        called = f"{module}.{qualname}"
        # Before any lock is taken: pickling runs code of the caller's classes.
        request = encode_call(module, qualname, args, kwargs or {}, limit=self.message_limit)
        if self._calling_thread == threading.get_ident():
            raise IsolationError(
                f"{called} was called by a signal handler or finalizer while the same thread waits for another call "
                f"of package {self.name!r}; use submit() there, or set a flag and call later"
            )
        counted = False
        try:
            with self._lock:
                self.active_calls += 1
                self.uses += 1
                counted = True
            answer = self._answer(module, request)
        finally:
            if counted:
                with self._lock:
                    self.active_calls -= 1
                    self.last_used = self._clock()
        return result_of(answer, called)

    def unload(
        self, *, idle_for: float | None = None, deadline_seconds: float = STOP_SECONDS
    ) -> tuple[int, str | None]:
        """End the package's process, unless a call runs or waits.

        Args:
            idle_for: seconds; leave it alone where a call ended less than that ago.
            deadline_seconds: seconds after which the process is killed, whatever `on_unload` and atexit functions do.

        Returns:
            The private bytes of the process right before its end, and None; or 0 and why it was left alone:
            "not loaded", "in use", "used 3.2 s ago", or "did not end" where the kernel could not end it.
        """
        with self._lock:
            process = self._process
            reason = self._reason_not_to_unload(process, idle_for)
            if process is None or reason is not None:
                return 0, reason
            # From here on a call starts a new process.
            self._process = None
            self.unloaded_at = self._clock()
        try:
            held = self._measure(process.pid)
        except OSError:  # it has ended meanwhile
            held = 0
        self._release_reservation()
        problems = process.stop(deadline_seconds=deadline_seconds)
        if problems is None:
            return 0, "did not end"
        self.count_unload(held)
        for problem in problems:
            self.count_problem("the on_unload function of package %r failed: %s", self.name, problem)
        self._notify_change()
        return held, None

    def close(self) -> None:
        """End the process, at once where a call runs, and cancel submitted calls; a later call starts a new one."""
        with self._lock:
            process, self._process = self._process, None
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
        if process is not None:
            process.stop()
        self._release_reservation()

    def executor(self) -> "ThreadPoolExecutor":
        """Return the executor that makes submitted calls, with its one thread; created by the first use."""
        with self._lock:
            if self._executor is None:
                from concurrent.futures import ThreadPoolExecutor  # 10 ms that direct calls do not need

                self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"mempressure-{self.name}")
            return self._executor

    def _answer(self, module: str, request: Payload) -> Frame:
        gone: ProcessGoneError | None = None
        timeouts_before = self.start_timeouts
        for _ in range(_ATTEMPTS):
            with self._call_lock:
                self._calling_thread = threading.get_ident()
                try:
                    # Were each waiting call to try its own start, the last would wait for the time of all of them.
                    if self.start_timeouts > timeouts_before:
                        raise ProcessStartTimeoutError(
                            f"the package process of {self.name!r} did not start within {self.start_timeout:g} s while "
                            f"this call waited for it; see what its import waits for"
                        )
                    process = self._usable_process()
                    if process is not None:
                        try:
                            return process.exchange(request)
                        finally:  # from its first call on, the memory of the process is measured
                            self._release_reservation()
                    self._start(module)
                except ProcessGoneError as error:
                    gone = error
                    continue
                except ProcessDiedError:
                    self._drop()
                    raise
                finally:
                    self._calling_thread = None
            # Without the lock, since it calls the application; nothing unloads the new process, this call being active.
            self._notify_change()
        raise ProcessDiedError(
            f"{_ATTEMPTS // 2} package processes of {self.name!r} in a row ended before they took the call"
        ) from gone

    def _usable_process(self) -> PackageProcess | None:
        process = self._process
        if process is None or process.usable:
            return process
        self._drop()
        return None

    def _drop(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.discard()
        self._release_reservation()

    def _release_reservation(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.release()

    def _start(self, module: str) -> None:
        if self._reserve is not None:
            self._reservation = self._reserve(self.name, self.cost_bytes)
        began = time.perf_counter()
        try:
            process = PackageProcess(
                self.name,
                module,
                hooks=self._hooks,
                on_death=self.count_death,
                start_seconds=self.start_timeout,
                message_limit=self.message_limit,
            )
        except BaseException as error:
            self._release_reservation()
            self.count_start_failure(error)
            raise
        if self._reservation is not None:
            self._reservation.pid = process.pid
        with self._lock:
            self._process = process
            self.count_start(now=self._clock(), seconds=time.perf_counter() - began)

    def _reason_not_to_unload(self, process: PackageProcess | None, idle_for: float | None) -> str | None:
        if self.active_calls:
            return "in use"
        if process is None or not process.usable:
            return "not loaded"
        if idle_for is not None and self.last_used is not None:
            idle = self._clock() - self.last_used
            # Long before its last use: the clock was set back. Else it would be kept until the clock has caught up.
            if -CLOCK_SET_BACK_SECONDS < idle < idle_for:
                return f"used {max(0.0, idle):.1f} s ago"
        return None

    def _notify_change(self) -> None:
        if self.on_change is None:
            return
        try:
            self.on_change()
        except Exception as error:  # noqa: BLE001 - a listener's failure is not the caller's
            self.count_problem("on_change of package %r failed: %r", self.name, error)


_packages: weakref.WeakSet[IsolatedPackage] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for package in list(_packages):
        package.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
