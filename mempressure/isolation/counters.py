"""Counters of one isolated package in this process: its calls, the starts of its processes, refaults and unloads."""

import threading

from mempressure.decide.backoff import is_refault, raised
from mempressure.errors import ProcessStartTimeoutError


class Counters:
    """What happened to an isolated package so far in this process. May be read at any time, from any thread."""

    def reset_counters(self) -> None:
        """Set everything to its initial value."""
        # The attributes are described in comments: docstrings would cost each worker 1.6 KB.
        # Held for an instant to change them; reentrant, for a finalizer or signal handler of the same thread.
        self._lock = threading.RLock()
        # Calls, each counted once, however many processes were tried.
        self.uses = 0
        # Calls that run or wait for their turn.
        self.active_calls = 0
        # End of the last call in Unix seconds, None before it.
        self.last_used: float | None = None
        # Processes started.
        self.loads = 0
        # Time that starting them took, imports included, in total.
        self.load_seconds = 0.0
        # Processes that failed to start, and of those the ones that did not start in time.
        self.start_failures = 0
        self.start_timeouts = 0
        # Starts that came too soon after an unload (see `mempressure.decide.backoff`).
        self.refaults = 0
        # The backoff level at the last refault.
        self.refault_level = 0.0
        # Time of the last refault in Unix seconds, None before it.
        self.last_refault: float | None = None
        # Seconds between the last refault and the unload before it.
        self.refault_delay = 0.0
        # Calls of `unload` that ended processes.
        self.unloads = 0
        # When the last unload began, in Unix seconds; None once a process was started after it.
        self.unloaded_at: float | None = None
        # Private memory of the processes ended by `unload`, in total.
        self.reclaimed_bytes = 0
        # Private bytes of one process when it was last measured, 0 before; set by the code that measures.
        self.cost_bytes = 0
        # Processes that ended without being asked to.
        self.process_deaths = 0
        # Failures of `on_unload` and `on_change`, which fail no call; the first is logged.
        self.problems = 0

    def count_start(self, *, now: float, seconds: float) -> None:
        """Count a process that started at `now`, in Unix seconds, which took some seconds."""
        with self._lock:
            self.loads += 1
            self.load_seconds += seconds
            unloaded, self.unloaded_at = self.unloaded_at, None
            if unloaded is None or not is_refault(unloaded, now):
                return
            since = 0.0 if self.last_refault is None else now - self.last_refault
            self.refaults += 1
            self.refault_level = raised(self.refault_level, since)
            self.last_refault = now
            self.refault_delay = max(0.0, now - unloaded)

    def count_start_failure(self, error: BaseException) -> None:
        """Count a process that failed to start with this error."""
        with self._lock:
            self.start_failures += 1
            self.start_timeouts += isinstance(error, ProcessStartTimeoutError)

    def count_unload(self, reclaimed: int, *, processes: int = 1) -> None:
        """Count an unload, and the private bytes that its processes held together; 0 where they are not known."""
        with self._lock:
            self.unloads += 1
            self.reclaimed_bytes += reclaimed
            self.cost_bytes = reclaimed // processes or self.cost_bytes

    def count_death(self) -> None:
        """Count a process that ended without being asked to."""
        with self._lock:
            self.process_deaths += 1

    def count_problem(self, message: str, *details: object) -> None:
        """Count a failure of the application's own function, and log the first with this message."""
        with self._lock:
            self.problems += 1
            first = self.problems == 1
        if first:
            import logging  # deferred: most workers never log here

            logging.getLogger("mempressure").warning(message, *details)
