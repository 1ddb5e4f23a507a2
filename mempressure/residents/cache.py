"""Caches of results that give their entries back: like `functools.lru_cache`, idle ones and under pressure."""

import functools
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from types import MethodType
from typing import Any, Generic, NamedTuple, ParamSpec, TypedDict, TypeVar, cast

from mempressure.forks import ensure_own_process
from mempressure.residents.load_cost import LoadCost
from mempressure.residents.reclaim import reclaim
from mempressure.residents.unit import Unit

P = ParamSpec("P")
R = TypeVar("R")

_KEYWORDS = object()
"""Separates positional arguments from named ones in a key."""

_OWN_KEYS = (int, str)
"""Alone, values of these types are keys as they are, and never equal to those of others, as in `functools`."""

EXPIRIES = 4
"""Idle entries are dropped at most so many times within a timeout: each time costs a measurement, 13 ms at 1 GB."""


class CacheInfo(NamedTuple):
    """What `functools.lru_cache` tells of itself."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class CacheParameters(TypedDict):
    """The parameters of a cache, as those of `functools.lru_cache`."""

    maxsize: int | None
    typed: bool


class _Entry:
    __slots__ = ("used", "value")

    def __init__(self, value: Any, used: float) -> None:
        self.value = value
        self.used = used


class Cache(Unit, Generic[P, R]):
    """A function whose results are kept by its arguments, the latest `maxsize` of them.

    Entries that are not used for `timeout` seconds are dropped where an agent runs, and all of them when the cache is
    let go. In a forked process those of the parent stay, whose memory the two share; its own are dropped.

    Args:
        function: its arguments are hashable.
        maxsize: number of entries; None for any number.
        typed: keep 3 and 3.0 apart.
        name, timeout, priority, keep_loaded, on_change, clock, reclaim: as of `Unit`.
    """

    __wrapped__: Callable[P, R]

    def __init__(  # noqa: PLR0913 -- options by keyword
        self,
        function: Callable[P, R],
        *,
        name: str,
        timeout: float,
        maxsize: int | None = 128,
        typed: bool = False,
        priority: int = 0,
        keep_loaded: bool = False,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
        reclaim: Callable[..., int] = reclaim,
    ) -> None:
        self._maxsize = None if maxsize is None else max(0, maxsize)
        self._typed = typed
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        """Those of this process, the least recently used first."""
        self._inherited_bytes = 0
        self._inherited: tuple[Mapping[Hashable, _Entry], ...] = ()
        """Those that its parents had, the nearest first: looked up, but neither moved nor dropped."""
        self._hits = self._misses = 0
        super().__init__(
            name,
            timeout=timeout,
            priority=priority,
            keep_loaded=keep_loaded,
            on_change=on_change,
            clock=clock,
            reclaim=reclaim,
        )
        functools.update_wrapper(self, function, updated=())  # attributes of the function are not options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the function's result for these arguments, from the cache where it is there.

        Threads that ask for the same at once each call the function, as with `functools.lru_cache`.

        Raises:
            Exception: what the function raised; nothing is kept of it.
            TypeError: an argument is not hashable.
        """
        key = self._key(args, kwargs)
        ensure_own_process()
        with self._lock:
            self.uses += 1
            self.last_used = now = self._clock()
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
                entry.used = now
            else:
                entry = next((found for each in self._inherited if (found := each.get(key)) is not None), None)
            if entry is not None:
                self._hits += 1
                return cast(R, entry.value)
            self._misses += 1
            self.active_calls += 1
            self._overlap = self.active_calls > 1
        try:
            with LoadCost() as cost:
                value = self.__wrapped__(*args, **kwargs)
                is_first, grows = self._store(key, value)
            with self._lock:
                self._count(cost, is_first=is_first, grows=grows)
        finally:
            with self._lock:
                self.active_calls -= 1
        if is_first:
            self._notify_change()
        return value

    def __get__(self, instance: object, owner: object = None) -> Any:
        """Return this bound to an instance whose method it is, as a function would be."""
        return self if instance is None else MethodType(self, instance)

    def cache_info(self) -> CacheInfo:
        """Return hits, misses, the most entries and their number now, as `functools.lru_cache` does."""
        with self._lock:
            return CacheInfo(self._hits, self._misses, self._maxsize, self._number)

    def cache_parameters(self) -> CacheParameters:
        """Return `maxsize` and `typed`."""
        return {"maxsize": self._maxsize, "typed": self._typed}

    def cache_clear(self) -> None:
        """Drop every entry, those of the parent too, and set hits and misses to 0."""
        with self._lock:
            entries, self._entries, self._inherited = self._entries, OrderedDict(), ()
            self._hits = self._misses = self.size_bytes = 0
        entries.clear()  # without the lock: it may run finalizers

    @property
    def loaded(self) -> bool:
        """Return whether there is an entry."""
        return bool(self._entries or self._inherited)

    @property
    def held_bytes(self) -> int:
        """Return what its entries hold, in bytes; those of its parent where it has none itself."""
        return self.size_bytes if self._entries else self._inherited_bytes

    def after_fork(self) -> None:
        """Begin anew in a forked child, with what its parent had as it was."""
        super().after_fork()
        self._inherited_bytes = self.held_bytes if self.loaded else 0
        # As it is: copying it would write to each key and value, and unshare them.
        self._inherited = (self._entries, *self._inherited) if self._entries else self._inherited
        self._entries = OrderedDict()
        self.size_bytes = 0
        self._overlap = False
        self._next_expiry = 0.0

    def is_idle(self) -> bool:
        """Return whether there are entries to drop that have been unused for `idle_needed` seconds."""
        now = self._clock()
        oldest = next(iter(self._entries.values()), None)
        return oldest is not None and now - oldest.used >= self.idle_needed and now >= self._next_expiry

    def release_idle(self) -> None:
        """Drop the entries that have been unused for `idle_needed` seconds."""
        dropped: list[_Entry] = []
        with self._lock:
            now, needed = self._clock(), self.idle_needed
            self._next_expiry = now + needed / EXPIRIES
            while self._entries and now - next(iter(self._entries.values())).used >= needed:
                dropped.append(self._entries.popitem(last=False)[1])
            if not dropped:
                return
            expected = self.size_bytes * len(dropped) // (len(dropped) + len(self._entries))
            self.size_bytes -= expected
            if not self._entries:
                self.unloaded_at = now
        self._give_back(dropped, expected)

    def __repr__(self) -> str:
        return f"<cache {self.name!r} of {self._number} entries>"

    @property
    def _is_inherited(self) -> bool:
        return not self._entries

    @property
    def _number(self) -> int:
        return len(self._entries) + sum(map(len, self._inherited))

    def _take(self) -> tuple[list[Any], int]:
        taken, self._entries = self._entries, OrderedDict()
        size, self.size_bytes = self.size_bytes, 0
        return [taken], size

    def _store(self, key: Hashable, value: R) -> tuple[bool, bool]:
        """Add an entry; return whether it is the first, and whether there is one more than before."""
        dropped = None
        with self._lock:
            before = len(self._entries)
            if self._maxsize == 0 or key in self._entries:  # another thread was faster
                return False, False
            self._entries[key] = _Entry(value, self._clock())
            if self._maxsize is not None and before == self._maxsize:
                dropped = self._entries.popitem(last=False)[1]
            grows = len(self._entries) > before
        del dropped  # without the lock: it may run finalizers
        return before == 0, grows

    def _count(self, cost: LoadCost, *, is_first: bool, grows: bool) -> None:
        """Count a miss: what it took, and by how much entries have grown, called with the lock."""
        if is_first:
            self.count_start(now=self._clock(), seconds=cost.seconds)
            self._is_late = True
        else:
            self.load_seconds += cost.seconds
        if self.active_calls == 1 and not self._overlap:
            self.size_bytes = max(0, self.size_bytes + cost.growth)
        elif grows and len(self._entries) > 1:
            # What misses in other threads added cannot be told apart: this one is taken to be like those before.
            self.size_bytes += self.size_bytes // (len(self._entries) - 1)

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        if len(args) == 1 and not kwargs and not self._typed and type(args[0]) in _OWN_KEYS:
            return cast(Hashable, args[0])
        key = args if not kwargs else (*args, _KEYWORDS, *kwargs.items())
        if self._typed:
            return (key, *map(type, args), *map(type, kwargs.values()))
        return key
