"""Residents: objects that a process loads once, on first use, and lets go when they are idle or memory is short."""

import functools
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from mempressure.errors import MempressureError
from mempressure.forks import ensure_own_process
from mempressure.packages.reservation import Reservation, Reserve
from mempressure.residents.load_cost import LoadCost
from mempressure.residents.reclaim import reclaim
from mempressure.residents.unit import Unit
from mempressure.residents.warming import UsedHours

T = TypeVar("T")


class Resident(Unit, Generic[T]):
    """A function without arguments whose result is kept for its next calls, until it is let go.

    *Held* means: more references to the object exist than when it was loaded. A variable, a bound method, an array view
    and a container that has the object are such references; a part of it that was taken out of it, such as one layer
    of a model, is none: that part stays with its holder when the rest is let go.

    Args:
        function: loads the object and returns it.
        name, timeout, priority, keep_loaded, on_change, clock, reclaim: as of `Unit`.
        warm: load it again in the background once pressure is over, if it was used in most of the last hours.
        reserve: called before it is loaded, to reserve the memory that it is known to need.
    """

    __wrapped__: Callable[[], T]

    def __init__(  # noqa: PLR0913 -- options by keyword
        self,
        function: Callable[[], T],
        *,
        name: str,
        timeout: float,
        priority: int = 0,
        keep_loaded: bool = False,
        warm: bool = False,
        on_change: Callable[[], None] = lambda: None,
        reserve: Reserve = lambda _name, _cost: Reservation(0),
        clock: Callable[[], float] = time.time,
        reclaim: Callable[..., int] = reclaim,
    ) -> None:
        self._slot: list[T] = []
        super().__init__(
            name,
            timeout=timeout,
            priority=priority,
            keep_loaded=keep_loaded,
            on_change=on_change,
            clock=clock,
            reclaim=reclaim,
        )
        self.warm = warm
        self._reserve = reserve
        functools.update_wrapper(self, function, updated=())  # attributes of the function are not options

    def __call__(self) -> T:
        """Return the object, loaded by the first call; calls that come meanwhile wait for it.

        Raises:
            Exception: what loading it raised, in each call that waited for it; the next call tries again.
            MemoryBudgetExceeded: there is not enough memory for it.
        """
        ensure_own_process()
        with self._lock:
            self.uses += 1
            if self._slot:
                self.last_used = self._clock()
                return self._slot[0]
        try:
            return self._join_load()
        finally:
            self.last_used = self._clock()

    @property
    def loaded(self) -> bool:
        """Return whether the object is there now."""
        return bool(self._slot)

    def after_fork(self) -> None:
        """Begin anew in a forked child; an object of its parent stays, as long as the child lives."""
        super().after_fork()
        self._loading: _Load | None = None
        self._inherited = bool(self._slot)
        self._references = 0
        self.hours = UsedHours()
        self._uses_seen = 0

    def tick(self) -> None:
        """Note whether the object is held, which counts as use, and in which hour it was used."""
        with self._lock:
            if self._slot and not self._inherited and self._held():
                self.last_used = self._clock()
            if self.warm:
                self.hours = self.hours.noted(self._clock(), used=self.uses > self._uses_seen)
                self._uses_seen = self.uses

    def load(self) -> None:
        """Load the object now if it is not there, without counting a use; raises as a call does."""
        if not self._slot:
            self._join_load()

    def __repr__(self) -> str:
        return f"<resident {self.name!r}, {'loaded' if self._slot else 'not loaded'}>"

    @property
    def _is_inherited(self) -> bool:
        return self._inherited

    def _held(self) -> str:
        more = _count(self._slot) - self._references
        return f"{more} more reference{'s' * (more > 1)} to it than when it was loaded" if more > 0 else ""

    def _take(self) -> tuple[list[Any], int]:
        taken, self._slot = self._slot, []
        return taken, self.size_bytes

    def _join_load(self) -> T:
        """Load the object, or wait for the thread that does."""
        while True:
            with self._lock:
                if self._slot:
                    return self._slot[0]
                load = self._loading
                if load is not None and load.thread == threading.get_ident():
                    raise MempressureError(
                        f"resident {self.name!r} was called while the same thread loads it: by its own function, or by "
                        "a signal handler or finalizer; load it without calling it"
                    )
                is_mine = load is None
                load = self._loading = load or _Load()
                self.active_calls += 1
            try:
                if is_mine:
                    self._load(load)
                load.done.wait()
            finally:
                with self._lock:
                    self.active_calls -= 1
            if load.found:
                if is_mine:
                    self._notify_change()
                return cast(T, load.found[0])
            if load.error is not None:
                try:
                    raise load.error
                finally:
                    del load  # which the error's traceback would keep, and with it the error itself
            # Interrupted in the thread that loaded it, as by KeyboardInterrupt: that is no answer for the others.

    def _load(self, load: "_Load") -> None:
        """Load the object and end the wait of all others; an interruption is raised here, an error where they wait."""
        found: list[T] = []
        error, cost = None, LoadCost()
        try:
            error = self._load_into(found, cost)
        finally:
            with self._lock:
                if found:
                    # What it refers to itself by is there already; from here on each reference more is a holder's.
                    self._references = _count(found)
                    self._slot, load.found = found, found.copy()
                    self.size_bytes, self._is_late, self._inherited = max(0, cost.growth), True, False
                    self.count_start(now=self._clock(), seconds=cost.seconds)
                load.error = error
                self._loading = None
            load.done.set()

    def _load_into(self, found: list[T], cost: LoadCost) -> Exception | None:
        """Append the object; return the error if there is one."""
        try:
            with self._reserve(self.name, self.size_bytes), cost:
                found.append(self.__wrapped__())
        except Exception as error:  # noqa: BLE001 -- raised again in each call that waits
            return error
        return None


class _Load:
    """One load under way."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.done = threading.Event()
        self.error: Exception | None = None
        self.found: list[Any] = []


def _count(slot: list[Any]) -> int:
    """Return how many references there are to the object in a slot, in the one way that makes counts comparable."""
    return sys.getrefcount(slot[0])
