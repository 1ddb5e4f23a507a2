"""Isolated packages: each lives in processes of its own while it is used; unloading it ends them."""

import atexit
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mempressure import forks
from mempressure.errors import IsolationError
from mempressure.isolation.calls import HookName, encode_call, hook_name, result_of
from mempressure.isolation.counters import Counters
from mempressure.isolation.generation import Generation, key_of
from mempressure.isolation.membership import Membership, generations_directory, remove_own_directory
from mempressure.isolation.processes import Processes
from mempressure.isolation.results import ImportedByResults
from mempressure.isolation.starting import Starter
from mempressure.package_process import descendants, interpreter
from mempressure.packages.reservation import Reservation, Reserve
from mempressure.protocol.frames import MESSAGE_BYTES

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from mempressure.isolation.ending import Asked, Stopped

START_SECONDS: Final = 60.0
"""Default time for a process's start, its imports included; then it is killed."""

STOP_SECONDS: Final = 5.0
"""Default time for a process's `on_unload` and exit functions; then it is killed."""

EACH_WORKER: Final = "worker"
"""The value of `processes` with which each worker has a process of its own."""

_EXIT_SECONDS = 2.0  # for all package processes together when the last worker ends
_NOTEWORTHY_BYTES = 5 << 20  # added to each process by what the function's module imports


def _private_bytes_of_tree(pid: int) -> int:
    return descendants.memory_of_tree(pid)[0]


class IsolatedPackage(Counters):
    """A package that lives in processes of its own while it is used, which the workers of an app share.

    Calls run in the order in which they come, from all workers and threads. A call starts the process where none runs,
    and one more where calls wait for longer than starting one takes. A process is never ended during a call. Every
    attribute may be read at any time from any thread. A forked child begins with counters at 0.

    Args:
        name: the package's import name, or another name where several packages share processes.
        packages: the import names of what the processes load; `name` by default.
        processes: most processes at a time, or `EACH_WORKER`; by default as many as the app has cores.
        results: "any", or "plain" to have none of the package's own objects in results.
        timeout: seconds without a call after which the package is idle; only stored here, for the unloading policy.
        start_timeout: seconds that starting a process may take, imports included.
        priority: of two candidates the lower is unloaded first; only stored here.
        keep_loaded: keep it loaded unless the pressure is high; only stored here.
        message_limit: largest size of a call's arguments, and of its result, in bytes.
        on_unload: a function of a module, run in a process before it ends in an orderly way.
        on_start: returns the functions that are run in a process before it imports anything.
        on_change: called after a process was started and after the package was unloaded, in the thread that did it.
        reserve: called before the first process is started, to reserve the memory that it is known to need.
        reserve_another: the same for one process more, which calls can do without.
        app: the name of the app whose workers share the processes.
        runtime: the runtime directory; the configured one by default.
        clock: returns the time in Unix seconds.
        measure: returns the private bytes of a process id and of what that started; raises `OSError` where it ended.
    """

    def __init__(  # noqa: PLR0913 - options by keyword
        self,
        name: str,
        *,
        packages: Sequence[str] = (),
        processes: int | str | None = None,
        results: str = "any",
        timeout: float = 60.0,
        start_timeout: float = START_SECONDS,
        priority: int = 0,
        keep_loaded: bool = False,
        message_limit: int = MESSAGE_BYTES,
        on_unload: Callable[[], object] | None = None,
        on_start: Callable[[], Sequence[HookName]] = tuple,
        on_change: Callable[[], None] | None = None,
        reserve: Reserve | None = None,
        reserve_another: Reserve | None = None,
        app: str = "",
        runtime: Path | None = None,
        clock: Callable[[], float] = time.time,
        measure: Callable[[int], int] = _private_bytes_of_tree,
    ) -> None:
        self.name = name
        self.packages = tuple(packages) or (name,)
        self.processes = processes
        self.results = results
        self.timeout = timeout
        self.start_timeout = start_timeout
        self.priority = priority
        self.keep_loaded = keep_loaded
        self.message_limit = message_limit
        self.on_unload = on_unload
        self.on_change = on_change
        self._on_start = on_start
        self._reserve = reserve
        self._reserve_another = reserve_another
        self._hooks = [] if on_unload is None else [hook_name(on_unload)]
        self._app = app
        self._runtime = runtime
        self._clock = clock
        self._measure = measure
        self._paths: list[tuple[str, ...]] = []
        self._declared_at = 0
        self._warned: set[str] = set()
        self._membership = Membership(
            key=self._new_key,
            directory=self._directory,
            declared_at=lambda: self._declared_at,
            processes=self._new_processes,
        )
        self._begin()
        self.note_declaration()
        _packages.add(self)

    def _begin(self) -> None:
        self.reset_counters()
        self._module = ""
        self._executor: ThreadPoolExecutor | None = None
        self._calling: set[int] = set()
        self.imported = ImportedByResults()

    def after_fork(self) -> None:
        """Begin anew in a forked child: connections and processes are the parent's, and its threads do not exist."""
        self._begin()
        self._membership.after_fork()

    @property
    def _processes(self) -> Processes | None:
        return self._membership.processes

    def note_declaration(self) -> None:
        """Note the `sys.path` of a declaration, and when this worker's code was loaded."""
        path = interpreter.declared_path()
        if path not in self._paths:
            self._paths.append(path)
        self._declared_at = time.time_ns()

    @property
    def process_pids(self) -> list[int]:
        """The ids of the package's processes, as far as this worker has called them; none where none runs."""
        processes = self._processes
        if processes is None:
            return []
        return [record.pid for record in processes.generation.records().values() if not record.stopping]

    @property
    def process_pid(self) -> int | None:
        """The id of one of its processes, None where none runs."""
        return next(iter(self.process_pids), None)

    @property
    def processes_id(self) -> str:
        """What names the processes for all workers that share them; empty before the first call."""
        processes = self._processes
        return "" if processes is None else processes.generation.identity

    @property
    def waiting_calls(self) -> int:
        """Calls of this worker that wait for a process."""
        processes = self._processes
        if processes is None or not self.active_calls:
            return 0
        running = sum(
            record.call != 0 and record.caller == os.getpid() for record in processes.generation.records().values()
        )
        return max(0, self.active_calls - running)

    @property
    def last_used_anywhere(self) -> float | None:
        """End of the last call of any worker in Unix seconds, None before it."""
        processes = self._processes
        ends = [] if self.last_used is None else [self.last_used]
        if processes is not None:
            ends += [record.last_used / 1e9 for record in processes.generation.records().values() if record.last_used]
        return max(ends, default=None)

    def call(
        self,
        module: str,
        qualname: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        declared_in: str | None = None,
    ) -> Any:
        """Run a function of an importable module in a process of the package and return its result.

        Args:
            module: where the function is defined.
            qualname: its name there.
            args: its arguments.
            kwargs: its keyword arguments.
            declared_in: the module that declares it; the same by default.

        Raises:
            Exception: what the function raised, of its own type.
            IsolationError: the arguments or the result cannot be sent, or the function cannot be found.
            ProcessStartError: the process failed to start, or the package or the module cannot be imported in it.
            ProcessStartTimeoutError: the start took more than `start_timeout`, here or in the call waited for.
            ProcessDiedError: the process ended during the call.
            MemoryBudgetExceeded: there is not enough memory for the process.
        """
        called = f"{module}.{qualname}"
        # Before anything is counted: pickling runs code of the caller's classes.
        request = encode_call(
            (module, qualname, declared_in or module),
            args,
            kwargs or {},
            limit=self.message_limit,
            plain=self.results == "plain",
        )
        forks.ensure_own_process()
        thread = threading.get_ident()
        if thread in self._calling:
            raise IsolationError(
                f"{called} was called by a signal handler or finalizer while the same thread waits for another call "
                f"of package {self.name!r}; use submit() there, or set a flag and call later"
            )
        self._calling.add(thread)
        counted = False
        try:
            with self._lock:
                self.active_calls += 1
                self.uses += 1
                counted = True
            self._module = self._module or module
            answer = self._membership.exchange(request)
        finally:
            self._calling.discard(thread)
            if counted:
                with self._lock:
                    self.active_calls -= 1
                    self.last_used = self._clock()
                if not self.active_calls:
                    self._membership.leave_behind()
        return result_of(answer, called, decode=self.imported.decoded)

    def unload(
        self, *, idle_for: float | None = None, deadline_seconds: float = STOP_SECONDS
    ) -> tuple[int, str | None]:
        """End the package's processes, unless a call of any worker runs or waits.

        Args:
            idle_for: seconds; leave a process alone where a call ended less than that ago.
            deadline_seconds: seconds after which a process is killed, whatever `on_unload` and exit functions do.

        Returns:
            The private bytes of the processes right before their end, and None; or what those that ended held, and why
            one was left alone: "not loaded", "in use", "used 3.2 s ago", or "did not end".
        """
        processes = self._processes
        reason = self._reason_not_to_unload(processes)
        if processes is None or reason is not None:
            return 0, reason
        from mempressure.isolation.ending import ask_to_end  # paid for by workers that end something

        unloaded_at = self._clock()
        asked = ask_to_end(processes, measure=self._measure, idle_for=idle_for)
        stopped = self._finish(processes, asked, time.monotonic() + deadline_seconds)
        if stopped.ended:
            with self._lock:
                self.unloaded_at = unloaded_at
            self.count_unload(stopped.held, processes=stopped.ended)
            processes.starter.release_reservations()
            self._membership.close_connections()
            self._notify_change()
        return stopped.held, stopped.reason or (None if stopped.ended else "not loaded")

    def close(self, *, seconds: float = STOP_SECONDS) -> None:
        """Use the processes no more, and cancel submitted calls; the last worker ends them, at once in a call.

        A later call starts a new one.
        """
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
        processes = self._membership.withdraw()
        if processes is None:
            return
        from mempressure.isolation.ending import ask_to_end, kill_all

        generation = processes.generation
        if generation.is_last_user():
            self._finish(processes, ask_to_end(processes, measure=self._measure), time.monotonic() + seconds)
            kill_all(processes)
            generation.remove()
        processes.close()

    def executor(self) -> "ThreadPoolExecutor":
        """Return the executor that makes submitted calls, with a thread for each process; created by the first use."""
        with self._lock:
            if self._executor is None:
                from concurrent.futures import ThreadPoolExecutor  # 10 ms that direct calls do not need

                self._executor = ThreadPoolExecutor(self._most(), thread_name_prefix=f"mempressure-{self.name}")
            return self._executor

    # What `starting.Starter` asks of it, beside its counters

    def reserve(self, *, another: bool) -> Reservation:
        """Reserve the memory that a process is known to need."""
        reserve = self._reserve_another if another else self._reserve
        return Reservation(0) if reserve is None else reserve(self.name, self.cost_bytes)

    def started(self, seconds: float, added: list[tuple[str, int]]) -> None:
        """Count a process that this worker started, and say what its function's module adds to it."""
        self.count_start(now=self._clock(), seconds=seconds)
        for module, size in added:
            if size >= _NOTEWORTHY_BYTES and module not in self._warned:
                self._warned.add(module)
                self._warn_of_module(module, size)
        self._notify_change()

    def _new_key(self) -> str:
        own = self.processes == EACH_WORKER
        return key_of(self.name, self.packages, app=self._app, paths=self._paths, own=own)

    def _new_processes(self, generation: Generation) -> Processes:
        starter = Starter(
            generation,
            packages=self.packages,
            most=self._most,
            start_seconds=self.start_timeout,
            start=self._start,
            events=self,
        )
        return Processes(generation, starter=starter, packages=self.packages)

    def _directory(self) -> str:
        def tell(directory: str, error: Exception) -> None:
            self.count_problem(
                "the processes of package %r are this worker's alone, in %s: the runtime directory cannot be used: %s",
                self.name,
                directory,
                error,
            )

        return generations_directory(self._runtime, on_problem=tell)

    def _most(self) -> int:
        if self.processes == EACH_WORKER:
            return 1
        if isinstance(self.processes, int):
            return self.processes
        from mempressure.measure.cores import usable_cores  # where the number is not given

        return usable_cores()

    def _start(self) -> dict[str, Any]:
        from mempressure.package_process import logs  # paid for by workers that start something

        return {
            **interpreter.handed_over(self._paths),
            "module": self._module,
            "on_start": list(self._on_start()),
            "on_unload": list(self._hooks),
            "limit": self.message_limit,
            "levels": logs.levels(),
        }

    def _finish(self, processes: Processes, asked: "Asked", deadline: float) -> "Stopped":
        from mempressure.isolation.ending import finish

        stopped = finish(processes, asked, deadline=deadline)
        for problem in stopped.problems:
            self.count_problem("ending the process of package %r: %s", self.name, problem)
        return stopped

    def _reason_not_to_unload(self, processes: Processes | None) -> str | None:
        if self.active_calls:
            return "in use"
        if processes is None or not processes.generation.records():
            return "not loaded"
        return None

    def _notify_change(self) -> None:
        if self.on_change is None:
            return
        try:
            self.on_change()
        except Exception as error:  # noqa: BLE001 - a listener's failure is not the caller's
            self.count_problem("on_change of package %r failed: %r", self.name, error)

    def _warn_of_module(self, module: str, size: int) -> None:
        import logging  # deferred: most workers never log here

        file = getattr(sys.modules.get(module), "__file__", None) or module
        logging.getLogger("mempressure").warning(
            "%s adds %.0f MiB to each process of %s: move the isolated function to a module whose package imports less",
            file,
            size / (1 << 20),
            self.name,
        )


_packages: weakref.WeakSet[IsolatedPackage] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for package in list(_packages):
        package.after_fork()


forks.in_child(_after_fork_in_child)


@atexit.register
def _close_all() -> None:
    """Leave all package processes at the orderly end of the worker; the last one ends them.

    Otherwise the kernel kills them, without any hook.
    """
    deadline = time.monotonic() + _EXIT_SECONDS
    for package in list(_packages):
        package.close(seconds=max(0.1, deadline - time.monotonic()))
    remove_own_directory()
