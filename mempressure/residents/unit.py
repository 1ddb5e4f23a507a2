"""The base of residents and caches: one unit that is loaded, used, let go and published under one name."""

import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from mempressure.decide.backoff import decayed, factor
from mempressure.forks import ensure_own_process, in_child
from mempressure.isolation.counters import Counters
from mempressure.measure.reading import CLOCK_SET_BACK_SECONDS, UNKNOWN
from mempressure.residents.reclaim import reclaim
from mempressure.state.records import SHARED_SOURCE, PackageState


class Released(NamedTuple):
    """What letting one unit go brought: bytes measured, or why it was left alone."""

    reclaimed_bytes: int
    skipped_reason: str | None = None


class Unit(Counters):
    """Something large in this process that is loaded on first use and can be let go.

    Every attribute may be read at any time from any thread. A forked child begins with counters at 0, and keeps what
    its parent had loaded, whose memory the two share.

    Args:
        name: names it in metrics, on the page and in orders.
        timeout: seconds without use after which it is idle.
        priority: of two candidates the lower is let go first.
        keep_loaded: leave it loaded unless the pressure is high.
        on_change: called after it was loaded or let go, in the thread that did it.
        clock: returns the time in Unix seconds.
        reclaim: as `mempressure.residents.reclaim.reclaim`.

    Attributes:
        size_bytes: what it took when it was loaded last.
    """

    __wrapped__: Callable[..., Any]
    """The function that loads it."""

    warm = False
    """Whether it is loaded again before it is asked for."""

    def __init__(
        self,
        name: str,
        *,
        timeout: float,
        priority: int = 0,
        keep_loaded: bool = False,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
        reclaim: Callable[..., int] = reclaim,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.priority = priority
        self.keep_loaded = keep_loaded
        self.size_bytes = 0
        self._on_change = on_change
        self._clock = clock
        self._reclaim = reclaim
        self._is_late = False
        self.after_fork()
        _units.add(self)

    def __reduce__(self) -> str:
        return str(self.__wrapped__.__qualname__)  # by name, like any function

    # What a kind of unit says

    @property
    def loaded(self) -> bool:
        """Return whether it holds something now."""
        raise NotImplementedError

    @property
    def _is_inherited(self) -> bool:
        """Return whether all that it holds was loaded before this process was forked."""
        raise NotImplementedError

    def _held(self) -> str:
        """Return by what else it is held, "" where by nothing; called with the lock, never for what is inherited."""
        return ""

    def _take(self) -> tuple[list[Any], int]:
        """Return what it holds, and what that took in bytes, and hold it no more; called with the lock."""
        raise NotImplementedError

    @property
    def held_bytes(self) -> int:
        """Return what it holds now, in bytes."""
        return self.size_bytes if self.loaded else 0

    def tick(self) -> None:
        """Note its use; called once a second where an agent runs."""

    # What is the same for all

    def after_fork(self) -> None:
        """Begin anew in a forked child, whose parent's threads do not exist here."""
        self.reset_counters()

    def begin_serving(self) -> None:
        """Count what is loaded from now on as loaded late: the worker takes requests, and has what a fresh one has."""
        self._is_late = False

    @property
    def late_bytes(self) -> int:
        """Return the bytes that a fresh worker would not hold."""
        return self.held_bytes if self._is_late and not self._is_inherited else 0

    def release(self, *, idle_for: float | None = None) -> Released:
        """Let go what it holds, unless that is in use; the next call loads it again.

        Args:
            idle_for: seconds; leave it alone where it was used less than that ago.

        Returns:
            By how many bytes the process' private memory fell, and None; or 0 and why it was left alone: "not loaded",
            "in use: ...", "used 3.2 s ago", or that it is shared with the parent.
        """
        ensure_own_process()
        with self._lock:
            reason = self._reason_to_keep(idle_for)
            if reason is not None:
                return Released(0, reason)
            dropped, expected = self._take()
            self.unloaded_at = self._clock()
        return Released(self._give_back(dropped, expected))

    def release_idle(self) -> None:
        """Let go what has been unused for `idle_needed` seconds."""
        self.release(idle_for=self.idle_needed)

    def reason_to_keep(self) -> str | None:
        """Return why it cannot be let go now, however long it is idle; None where it can."""
        with self._lock:
            return self._reason_to_keep(None)

    @property
    def idle_needed(self) -> float:
        """Return how many seconds it must be unused to be idle: its timeout, longer after refaults."""
        since = 0.0 if self.last_refault is None else self._clock() - self.last_refault
        return self.timeout * factor(decayed(self.refault_level, since))

    def is_idle(self) -> bool:
        """Return whether it holds something that can be let go and has been unused for `idle_needed` seconds."""
        return self.loaded and not self._is_inherited and not self._used_within(self.idle_needed)

    def state(self) -> PackageState:
        """Return it as the worker publishes it."""
        inherited = self.loaded and self._is_inherited
        size = float(self.held_bytes)
        return PackageState(
            name=self.name,
            mechanism="release",
            source=SHARED_SOURCE if inherited else "resident",
            timeout=self.timeout,
            priority=self.priority,
            keep_loaded=self.keep_loaded,
            loaded=float(self.loaded),
            active_calls=float(self.active_calls),
            memory_bytes=size,
            cumulative_bytes=size,
            freed_bytes=0.0 if inherited else size,
            last_used=UNKNOWN if self.last_used is None else self.last_used,
            uses=float(self.uses),
            loads=float(self.loads),
            refaults=float(self.refaults),
            refault_level=self.refault_level,
            last_refault=UNKNOWN if self.last_refault is None else self.last_refault,
            refault_delay=self.refault_delay,
            load_seconds=self.load_seconds,
            unloads=float(self.unloads),
            reclaimed_bytes=float(self.reclaimed_bytes),
        )

    def _reason_to_keep(self, idle_for: float | None) -> str | None:
        if not self.loaded:
            return "in use: it is being loaded" if self.active_calls else "not loaded"
        if self._is_inherited:
            return "it was loaded before the fork: its memory is shared with the parent, and would not come back"
        if idle_for is not None and self._used_within(idle_for):
            return f"used {max(0.0, self._clock() - (self.last_used or 0.0)):.1f} s ago"
        held = self._held()
        return f"in use: {held}" if held else None

    def _used_within(self, seconds: float) -> bool:
        # Long before its last use: the clock was set back. Else it would be kept until the clock has caught up.
        return self.last_used is not None and -CLOCK_SET_BACK_SECONDS < self._clock() - self.last_used < seconds

    def _give_back(self, dropped: list[Any], expected: int) -> int:
        """Drop what was taken, count what that gives back, and return it; called without the lock."""
        reclaimed = self._reclaim(dropped, expected=expected)
        self.count_unload(reclaimed)
        self._notify_change()
        return reclaimed

    def _notify_change(self) -> None:
        try:
            self._on_change()
        except Exception as error:  # noqa: BLE001 -- a listener's failure is not the caller's
            # As a text: the traceback, which a log handler may keep, has the object among its variables.
            self.count_problem("on_change of resident %r failed: %s", self.name, repr(error))


_units: weakref.WeakSet[Unit] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for unit in list(_units):
        unit.after_fork()


in_child(_after_fork_in_child)
