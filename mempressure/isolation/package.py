"""Isolated packages: each lives in a process of its own while it is used, and is ended between calls."""

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mempressure.decide.backoff import REFAULT_SECONDS, is_refault, raised
from mempressure.errors import IsolationError, ProcessDiedError, ProcessStartTimeoutError
from mempressure.isolation.calls import encode_call, importable_name, result_of
from mempressure.isolation.frames import MESSAGE_BYTES, Frame, Payload
from mempressure.isolation.process import START_SECONDS, STOP_SECONDS, HostGoneError, PackageProcess
from mempressure.measure.process import private_bytes
from mempressure.measure.reading import CLOCK_SET_BACK_SECONDS
from mempressure.packages.reservation import Reservation, Reserve

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_ATTEMPTS = 6  # at a call: each host that ended before it took the call costs two


class IsolatedPackage:
    """A package that lives in a process of its own while it is used.

    Calls queue, and run one at a time. The process is started by a call, never ended during one, and a call that finds
    it gone gets a new one. Every attribute may be read at any time; counters begin at 0 again in a forked child.

    Args:
        name: the package's import name.
        timeout: seconds without a call that make it idle; only kept here, for whoever decides.
        start_timeout: seconds that starting the process may take, imports included.
        priority: of two candidates the lower is unloaded first; likewise.
        keep_loaded: leave it loaded unless the pressure is high; likewise.
        message_limit: bytes that the arguments or the result of a call may take.
        on_unload: a function of a module, run in the process before it ends in an orderly way.
        on_change: called after a process was started and after the package was unloaded, in the thread that did it.
        reserve: called before a process is started, to reserve what it is known to take.
        refault_window: seconds; see `refaults`.
        clock: the time in unix seconds.
        measure: the private bytes of a process id; raises `OSError` for one that is gone.

    Attributes:
        uses: calls that were made, by however many processes they were answered.
        loads: processes started.
        start_failures: processes that did not come up.
        load_seconds: what starting them took, imports included, in total.
        refaults: starts less than `refault_window` after an unload.
        refault_level: the backoff level at the last of them (see `mempressure.decide.backoff`).
        last_refault: when that was in unix seconds, None before it.
        refault_delay: seconds between it and the unload before it.
        last_used: end of the last call in unix seconds, None before it.
        active_calls: calls that run or queue.
        unloads: processes ended by `unload`.
        reclaimed_bytes: what they held, in total.
        cost_bytes: what its process held when it was last measured, 0 before it; whoever measures may set it.
        process_deaths: processes that ended by themselves.
        problems: failures of `on_unload` and `on_change` that were survived.
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
        refault_window: float = REFAULT_SECONDS,
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
        self.refault_window = refault_window
        self._hooks = [] if on_unload is None else [_hook_name(on_unload)]
        self._clock = clock
        self._measure = measure
        self._begin()
        _packages.add(self)

    def _begin(self) -> None:
        self.uses = 0
        self.loads = 0
        self.start_failures = 0
        self.load_seconds = 0.0
        self.refaults = 0
        self.refault_level = 0.0
        self.last_refault: float | None = None
        self.refault_delay = 0.0
        self.last_used: float | None = None
        self.active_calls = 0
        self.unloads = 0
        self.reclaimed_bytes = 0
        self.process_deaths = 0
        self.problems = 0
        self.cost_bytes = 0
        self._reservation: Reservation | None = None
        self._unloaded_at: float | None = None
        self._start_timeouts = 0
        self._host: PackageProcess | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._caller: int | None = None
        # Held while a host is started or runs a call.
        self._turn = threading.Lock()
        # Held for an instant, for the attributes above; re-entered by a finalizer or signal handler at worst.
        self._state = threading.RLock()

    @property
    def process_pid(self) -> int | None:
        """The process id of the host, None where none runs."""
        host = self._host
        return None if host is None or host.ended else host.pid

    def call(
        self, module: str, qualname: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function of an importable module in the package's process and return its result.

        Raises:
            Exception: what the function raised, of its own type.
            IsolationError: arguments, result or function cannot travel.
            ProcessStartError: the process did not come up, or the package or the module cannot be imported in it.
            ProcessStartTimeoutError: that took more than `start_timeout`, for this call or for the one it waited for.
            ProcessDiedError: the process ended during the call.
            MemoryBudgetExceeded: there is no room for the process.
        """
        called = f"{module}.{qualname}"
        # Pickling runs code of the caller's classes: never while holding the package.
        request = encode_call(module, qualname, args, kwargs or {}, limit=self.message_limit)
        if self._caller == threading.get_ident():
            raise IsolationError(
                f"{called} was called by a signal handler or finalizer while the same thread waits for another call "
                f"of package {self.name!r}; use submit() there, or set a flag and call later"
            )
        counted = False
        try:
            with self._state:
                self.active_calls += 1
                self.uses += 1
                counted = True
            answer = self._answer(module, request)
        finally:
            if counted:
                with self._state:
                    self.active_calls -= 1
                    self.last_used = self._clock()
        return result_of(answer, called)

    def unload(
        self, *, idle_for: float | None = None, deadline_seconds: float = STOP_SECONDS
    ) -> tuple[int, str | None]:
        """End the package's process, unless a call runs or waits.

        Args:
            idle_for: seconds; leave it alone where a call ended less than that ago.
            deadline_seconds: what `on_unload` and atexit functions may take until the process is killed.

        Returns:
            The bytes that the process held for itself right before, and None; or 0 and why it was left alone:
            "not loaded", "in use", "used 3.2 s ago", or "did not end" where the kernel could not end it.
        """
        with self._state:
            host = self._host
            reason = self._reason_not_to_unload(host, idle_for)
            if host is None or reason is not None:
                return 0, reason
            # From here on a call gets a host of its own.
            self._host = None
            self._unloaded_at = self._clock()
        try:
            held = self._measure(host.pid)
        except OSError:  # it has ended meanwhile
            held = 0
        self._release()
        problems = host.stop(deadline_seconds=deadline_seconds)
        if problems is None:
            return 0, "did not end"
        with self._state:
            self.unloads += 1
            self.reclaimed_bytes += held
            self.cost_bytes = held or self.cost_bytes
        for problem in problems:
            self._survive("the on_unload function of package %r failed: %s", self.name, problem)
        self._changed()
        return held, None

    def close(self) -> None:
        """End the package's process for good measure, at once where a call runs; a later call starts another."""
        with self._state:
            host, self._host = self._host, None
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
        if host is not None:
            host.stop()
        self._release()

    def executor(self) -> "ThreadPoolExecutor":
        """Return the one thread that makes submitted calls; it starts with the first."""
        with self._state:
            if self._executor is None:
                from concurrent.futures import ThreadPoolExecutor  # 10 ms that blocking callers do not pay

                self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"mempressure-{self.name}")
            return self._executor

    def after_fork(self) -> None:
        """Begin anew in a forked child: the host is the parent's, and its threads are not here."""
        self._begin()

    def _answer(self, module: str, request: Payload) -> Frame:
        gone: HostGoneError | None = None
        hung = self._start_timeouts
        for _ in range(_ATTEMPTS):
            with self._turn:
                self._caller = threading.get_ident()
                try:
                    if self._start_timeouts > hung:  # each trying in turn, the last would wait for all of them
                        raise ProcessStartTimeoutError(
                            f"the host of package {self.name!r} did not start within {self.start_timeout:g} s while "
                            f"this call waited for it; see what its import waits for"
                        )
                    host = self._usable_process()
                    if host is not None:
                        try:
                            return host.exchange(request)
                        finally:  # from its first call on, what the host takes is measured
                            self._release()
                    self._start(module)
                except HostGoneError as error:
                    gone = error
                    continue
                except ProcessDiedError:
                    self._drop()
                    raise
                finally:
                    self._caller = None
            # The turn is given up for this; the new host stays, since this call counts as active.
            self._changed()
        raise ProcessDiedError(
            f"one host of package {self.name!r} after the other ended before it took the call"
        ) from gone

    def _usable_process(self) -> PackageProcess | None:
        host = self._host
        if host is None or host.usable:
            return host
        self._drop()
        return None

    def _drop(self) -> None:
        with self._state:
            host, self._host = self._host, None
        if host is not None:
            host.discard()
        self._release()

    def _release(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.release()

    def _start(self, module: str) -> None:
        if self._reserve is not None:
            self._reservation = self._reserve(self.name, self.cost_bytes)
        began = time.perf_counter()
        try:
            host = PackageProcess(
                self.name,
                module,
                hooks=self._hooks,
                on_death=self._count_death,
                start_seconds=self.start_timeout,
                message_limit=self.message_limit,
            )
        except BaseException as error:
            self._release()
            with self._state:
                self.start_failures += 1
                self._start_timeouts += isinstance(error, ProcessStartTimeoutError)
            raise
        if self._reservation is not None:
            self._reservation.pid = host.pid
        with self._state:
            self._host = host
            self.loads += 1
            self.load_seconds += time.perf_counter() - began
            unloaded, self._unloaded_at = self._unloaded_at, None
            now = self._clock()
            if unloaded is not None and is_refault(unloaded, now, window=self.refault_window):
                self._count_refault(now, delay=max(0.0, now - unloaded))

    def _count_refault(self, now: float, *, delay: float) -> None:
        since = 0.0 if self.last_refault is None else now - self.last_refault
        self.refaults += 1
        self.refault_level = raised(self.refault_level, since)
        self.last_refault = now
        self.refault_delay = delay

    def _reason_not_to_unload(self, host: PackageProcess | None, idle_for: float | None) -> str | None:
        if self.active_calls:
            return "in use"
        if host is None or not host.usable:
            return "not loaded"
        if idle_for is not None and self.last_used is not None:
            idle = self._clock() - self.last_used
            # Long before its last use: the clock was set back, and it would be kept until the clock has caught up.
            if -CLOCK_SET_BACK_SECONDS < idle < idle_for:
                return f"used {max(0.0, idle):.1f} s ago"
        return None

    def _count_death(self) -> None:
        with self._state:
            self.process_deaths += 1

    def _changed(self) -> None:
        if self.on_change is None:
            return
        try:
            self.on_change()
        except Exception as error:  # noqa: BLE001 - a listener's failure is not the caller's
            self._survive("on_change of package %r failed: %r", self.name, error)

    def _survive(self, message: str, *details: object) -> None:
        with self._state:
            self.problems += 1
            first = self.problems == 1
        if first:
            import logging  # deferred: most workers never come here

            logging.getLogger("mempressure").warning(message, *details)


def _hook_name(function: Callable[[], object]) -> tuple[str, str]:
    module, name = importable_name(function)
    if module == "__main__":
        raise IsolationError(
            f"on_unload function {name} is defined in the main program, which a package process cannot import; "
            "move it to a module of its own and import it from there"
        )
    return module, name


_packages: weakref.WeakSet[IsolatedPackage] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for package in list(_packages):
        package.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
