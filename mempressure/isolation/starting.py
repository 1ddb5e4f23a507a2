"""Starting the processes of a generation: the first for a call that finds none, more where calls wait for too long."""

import contextlib
import marshal
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mempressure.errors import MempressureError, ProcessStartError, ProcessStartTimeoutError
from mempressure.isolation.generation import Generation, Lock
from mempressure.packages.reservation import Reservation
from mempressure.protocol import slots

LEAST_START_SECONDS = 0.047
"""What starting a process that imports nothing takes: waiting for less is cheaper."""

_RETRY_SECONDS = 0.005  # between looks whether a process that ends or starts is done
_SETTLE_SECONDS = 2.0  # for a process that lives and has no socket: it is about to end, or somebody removed the socket
_LOCK_SECONDS = 5.0  # beyond the limit for a start, for another worker to start a process: it may be stopped
_MOST_STATUSES = 16
_AGAIN_SECONDS = 5.0  # after one process more could not be started


if TYPE_CHECKING:
    from typing import Protocol

    from mempressure.isolation.spawner import Child

    class Events(Protocol):
        """What happens to the processes, for the package's counters."""

        def reserve(self, *, another: bool) -> Reservation:
            """Reserve memory for the first process or another; raises `MemoryBudgetExceeded` where there is none."""

        def started(self, seconds: float, added: list[tuple[str, int]]) -> None:
            """Count a process that this worker started; importing its module and that one's parents added so much."""

        def count_start_failure(self, error: BaseException) -> None:
            """Count a start that failed."""

        def count_death(self) -> None:
            """Count a process that ended without being asked to."""


class Starter:
    """Starts processes of one generation, and keeps those that it started.

    Args:
        generation: the generation.
        packages: the import names that each process loads.
        most: returns how many processes there may be at a time.
        start_seconds: limit for the start of one, imports included.
        start: returns what a process takes over and imports.
        events: told what happens.

    Attributes:
        children: the processes that this worker has started, by their ids.
        statuses: the exit statuses of those that have ended lately.
    """

    def __init__(
        self,
        generation: Generation,
        *,
        packages: tuple[str, ...],
        most: Callable[[], int],
        start_seconds: float,
        start: Callable[[], Mapping[str, Any]],
        events: "Events",
    ) -> None:
        self.children: dict[int, Child] = {}
        self.statuses: dict[int, int | None] = {}
        self._generation = generation
        self._packages = packages
        self._most = most
        self._start_seconds = start_seconds
        self._start = start
        self._events = events
        self._reservations: list[Reservation] = []
        self._starting_more = threading.Lock()
        self._not_before = 0.0  # of the monotonic clock: another process
        self._locked_since: float | None = None  # of the monotonic clock: others start a process, for all one knows
        self._unheard_since: float | None = None  # of the monotonic clock: there is a process, and no socket

    def release_reservations(self) -> None:
        """Give up the memory that was reserved for starts."""
        while self._reservations:
            self._reservations.pop().release()

    def seconds(self) -> float:
        """Return what starting one process more would take."""
        taken = [record.ready_in / 1e9 for record in self._generation.records().values()]
        return max(LEAST_START_SECONDS, min(taken, default=0.0))

    def start_first(self, began: int) -> bool:
        """Start a process unless another thread or worker does; then return, for the caller to look again.

        Args:
            began: when the caller's call was made, in nanoseconds of the monotonic clock.

        Returns:
            Whether it was started here.

        Raises:
            ProcessStartError: the process, or one that this call waited for, failed to start.
            ProcessStartTimeoutError: another worker has been starting one for longer than that may take.
            MemoryBudgetExceeded: there is no room for it.
        """
        self._raise_failure_after(began)
        try:
            lock = self._generation.start_lock()
        except OSError as error:
            raise ProcessStartError(
                f"the package process of {', '.join(self._packages)} cannot be started: {error}"
            ) from error
        if lock is None:
            self._wait_for_others()
            return False
        self._locked_since = None
        try:
            living = self._generation.living()
            records = {number: self._generation.record(number) for number in living}
            if any(record is None or not record.stopping for record in records.values()) and not self._is_unheard():
                time.sleep(_RETRY_SECONDS)  # it has just started, or is about to be killed
                return False
            self._raise_failure_after(began)  # of the start that this call has waited for
            self._start_in(_free_slot(living), None, another=False)
            self._unheard_since = None
            return True
        finally:
            lock.release()

    def _wait_for_others(self) -> None:
        """Wait for a moment while another thread or worker starts a process."""
        now = time.monotonic()
        since = self._locked_since = self._locked_since or now
        limit = self._start_seconds + _LOCK_SECONDS
        if now - since > limit:
            self._locked_since = None
            raise ProcessStartTimeoutError(
                f"another worker has been starting the package process of {', '.join(self._packages)} for more than "
                f"{limit:g} s; see whether it is stopped (state T in ps)"
            )
        time.sleep(_RETRY_SECONDS)

    def _is_unheard(self) -> bool:
        """Return whether there has been a process without its socket for too long."""
        now = time.monotonic()
        since = self._unheard_since = self._unheard_since or now
        if now - since > 2 * _SETTLE_SECONDS:  # that was another time
            self._unheard_since = now
            return False
        return now - since > _SETTLE_SECONDS

    def start_more(self) -> None:
        """Start one process more in the background, unless there are enough, or one is being started."""
        if time.monotonic() < self._not_before or not self._starting_more.acquire(blocking=False):
            return
        try:
            if len(self._generation.living()) >= self._most():
                self._starting_more.release()
                return
            threading.Thread(target=self._start_another, name="mempressure-start", daemon=True).start()
        except (OSError, RuntimeError):  # no thread to be had
            self._not_before = time.monotonic() + _AGAIN_SECONDS
            self._starting_more.release()

    def _start_another(self) -> None:
        from mempressure.isolation.spawner import listener_of

        lock: Lock | None = None
        try:
            lock = self._generation.start_lock()
            living = self._generation.living()
            if lock is None or not living or len(living) >= self._most():
                return
            busy = [number for number, record in self._generation.records().items() if not record.stopping]
            listeners = (listener_of(self._generation, number) for number in busy)
            listener = next((each for each in listeners if each is not None), None)
            if busy:
                # With a new socket where all hold the GIL in C code, or are stopped: those that wait move to it.
                self._start_in(_free_slot(living), listener, another=True)
        except (MempressureError, OSError):  # counted; calls go on waiting for the processes that there are
            self._not_before = time.monotonic() + _AGAIN_SECONDS
        finally:
            if lock is not None:
                lock.release()
            self._starting_more.release()

    def _start_in(self, number: int, listener: socket.socket | None, *, another: bool) -> None:
        """Start a process in a free slot, with the lock held; without a listening socket it gets a new one."""
        # 0.3 MB with subprocess, which workers that call what others have started need not hold.
        from mempressure.isolation.spawner import new_listener, start_process

        began = time.perf_counter()
        reservation = self._events.reserve(another=another)
        try:
            try:
                listener = listener or new_listener(self._generation)
            except OSError as error:
                raise ProcessStartError(
                    f"the socket of the package process of {', '.join(self._packages)} cannot be made: {error}"
                ) from error
            with listener:
                child, added = start_process(
                    self._generation,
                    number,
                    listener,
                    packages=self._packages,
                    start=self._start(),
                    seconds=self._start_seconds,
                    on_end=lambda child: self._note_end(child, number),
                )
        except BaseException as error:
            reservation.release()
            self._events.count_start_failure(error)
            if isinstance(error, ProcessStartError):
                self._note_failure(error)
            raise
        reservation.pid = child.pid
        self._reservations.append(reservation)
        self.children[child.pid] = child
        self._events.started(time.perf_counter() - began, added)

    def _note_end(self, child: "Child", number: int) -> None:
        record = self._generation.record(number)
        self.children.pop(child.pid, None)
        self.statuses[child.pid] = child.status
        while len(self.statuses) > _MOST_STATUSES:
            del self.statuses[next(iter(self.statuses))]
        if record is None or record.pid != child.pid:  # another has its place already
            died = bool(child.status)
        else:
            died = bool(record.ready_in) and not record.stopping and not record.abandoned
        if died:
            self._events.count_death()

    def _note_failure(self, error: ProcessStartError) -> None:
        """Tell the other workers whose calls waited for this start why it failed."""
        path = f"{self._generation.directory}/failure"
        failure = (time.monotonic_ns(), isinstance(error, ProcessStartTimeoutError), str(error))
        with contextlib.suppress(OSError):  # a full disk: each tries it itself
            with open(f"{path}.new", "wb") as file:
                file.write(marshal.dumps(failure))
            os.replace(f"{path}.new", path)

    def _raise_failure_after(self, began: int) -> None:
        # Were each waiting call to try its own start, the last would wait for the time of all of them.
        try:
            with open(f"{self._generation.directory}/failure", "rb") as file:
                when, timed_out, text = marshal.loads(file.read())  # noqa: S302 - in a directory of this user's own
        except (OSError, ValueError, EOFError, TypeError):
            return
        if when > began:
            raise (ProcessStartTimeoutError if timed_out else ProcessStartError)(text)


def _free_slot(living: Mapping[int, int]) -> int:
    return next(number for number in range(slots.MOST_SLOTS) if number not in living)
