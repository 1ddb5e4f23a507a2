"""Packages that live in the worker itself: when they were used, what their import cost."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType

from mempressure.decide.backoff import is_refault, raised
from mempressure.measure.reading import CLOCK_SET_BACK_SECONDS, UNKNOWN
from mempressure.packages.accessed_bit import ArmedModule, arm, disarm, take_used
from mempressure.packages.attribution import freed_if_removed, references
from mempressure.packages.deferred_import import Import, TrackingFinder
from mempressure.packages.reservation import Reserve
from mempressure.state.records import PackageState

_ARMED_DEPTH = 1
"""Of a tracked package the root and its direct children are armed: use goes through them, and arming sympy's 900
modules at each tick would cost more than it tells."""

RETRY_SECONDS = 60.0
"""A package that was pinned is not looked at again for this long: a look at sympy takes 0.2 s of a core."""

MOST_OF_THE_TIME = 0.01
"""Share of the time that may go into finding who imports whom unasked."""


@dataclass(slots=True, kw_only=True)
class TrackedPackage:
    """One package imported in this process; bytes, seconds, Unix times."""

    name: str
    timeout: float
    priority: int
    keep_loaded: bool
    evict: bool = False
    """Whether it may be emptied in place."""
    loads: int = 0
    load_seconds: float = 0.0
    import_bytes: int = 0
    """What its imports added, those of other tracked packages within not counted."""
    cumulative_bytes: int = 0
    """The same with them; neither is known of what was imported before it was tracked."""
    importers: set[str] = field(default_factory=set)
    """Who was seen to import it: tracked packages, and "" for the application."""
    imports: frozenset[str] = frozenset()
    freed_bytes: float = UNKNOWN
    """As `attribute` found them last."""
    last_used: float = UNKNOWN
    uses: int = 0
    """Ticks that saw a use, and `using` blocks."""
    active: int = 0
    """`using` blocks that are open now."""
    unloads: int = 0
    """Evictions; the fields below are as those of `IsolatedPackage`."""
    reclaimed_bytes: int = 0
    unloaded_at: float | None = None
    refaults: int = 0
    refault_level: float = 0.0
    last_refault: float = UNKNOWN
    refault_delay: float = 0.0
    inherited: bool = False
    """Whether it was loaded when this process was forked."""
    evict_refused: str = ""
    """The pins that were found when that was tried last."""
    evict_refused_at: float = 0.0


class PackageTracker:
    """Tracks packages that are imported in this process.

    Args:
        clock: Unix seconds.
        on_change: called after a tracked package was loaded.
        reserve: called before a package is imported on first use (see `mempressure.packages.deferred_import`).
        evict_refused: returns why a package is not to be evicted, whatever refers to it; empty where it may be.
        discover: says of a top-level name that is about to be imported whether to track it from now on.

    Attributes:
        accessed_bit: whether modules are armed; without it nobody knows how long a package has been idle.
        evict_unsupported: why nothing can be evicted in this process; empty where it can.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        on_change: Callable[[], None] = lambda: None,
        reserve: Reserve | None = None,
        evict_refused: Callable[[str], str] = lambda _: "",
        discover: Callable[[str], bool] | None = None,
    ) -> None:
        self.accessed_bit = True
        self.evict_unsupported = ""
        self._clock = clock
        self._reserve = reserve
        self._evict_refused = evict_refused
        self._on_change = on_change
        self._packages: dict[str, TrackedPackage] = {}
        self._lock = threading.Lock()
        self._modules: dict[str, list[ModuleType]] = {}
        self._modules_seen = -1
        self._attributed: tuple[int, ...] = ()
        self._next_attribution = 0.0
        tracks = self._packages.__contains__ if discover is None else lambda name: name in self or discover(name)
        self._finder = TrackingFinder(tracks, self, reserve=reserve)

    def track(
        self, name: str, *, timeout: float, priority: int = 0, keep_loaded: bool = False, evict: bool = False
    ) -> TrackedPackage:
        """Track the package that module `name` belongs to; the last options given hold."""
        root = name.partition(".")[0]
        self._finder.install()
        with self._lock:
            package = self._packages.get(root)
            if package is None:
                package = TrackedPackage(
                    name=root, timeout=timeout, priority=priority, keep_loaded=keep_loaded, evict=evict
                )
                if root in sys.modules:  # imported before anyone could measure it
                    package.loads, package.last_used = 1, self._clock()
                self._packages[root] = package
                self._modules_seen = -1
            else:
                package.timeout, package.priority, package.keep_loaded = timeout, priority, keep_loaded
                package.evict = evict
        return package

    def watch(self) -> None:
        """Look at imports from now on, though nothing is tracked yet."""
        self._finder.install()

    def defer(self, name: str) -> ModuleType:
        """Return module `name`, or the object it will be imported into on first use."""
        return self._finder.defer(name)

    def after_fork(self) -> None:
        """Begin anew in a forked child, where the thread that may hold the lock is not."""
        self._lock = threading.Lock()
        for package in self._packages.values():
            package.inherited = _is_loaded(package.name)

    def close(self) -> None:
        """Stop tracking: leave modules and the import system as they were."""
        self._finder.uninstall()
        for modules in self._modules.values():
            for module in modules:
                disarm(module)

    def __contains__(self, name: str) -> bool:
        return name.partition(".")[0] in self._packages

    def evicts(self, name: str) -> bool:
        """Return whether a package was opted in to be evicted."""
        return self._packages[name].evict

    def imported(self, measured: Import) -> None:
        """Count an import that crossed the package's boundary (see `mempressure.packages.deferred_import`)."""
        with self._lock:
            tracked = self._packages[measured.package]
            tracked.loads += measured.root
            tracked.load_seconds += measured.seconds
            tracked.import_bytes = max(0, tracked.import_bytes + measured.self_bytes)
            tracked.cumulative_bytes = max(0, tracked.cumulative_bytes + measured.cumulative_bytes)
            tracked.importers.add(measured.importer)
            tracked.last_used = self._clock()
            if measured.root:
                self._modules_seen = -1  # the modules of one that was evicted are known to `sys.modules` all the time
                tracked.inherited = False
                _count_refault(tracked)
            for package in self._packages.values():  # whoever imports whom may have changed
                package.freed_bytes = UNKNOWN
        self._on_change()

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Mark a package as in use for the length of a block."""
        package = self._packages[name.partition(".")[0]]
        with self._lock:
            package.active += 1
            package.uses += 1
        try:
            yield
        finally:
            with self._lock:
                package.active -= 1
                package.last_used = self._clock()

    def tick(self) -> None:
        """Note which packages were used since the last tick, and arm them again.

        A use is dated at the tick that sees it, at most one interval late: never too early.
        """
        if not self.accessed_bit:
            return
        self._find_modules()
        now = self._clock()
        for name, modules in self._modules.items():
            if take_used([module.__name__ for module in modules]):
                with self._lock:
                    self._packages[name].last_used = now
                    self._packages[name].uses += 1
            for module in modules:
                arm(module)

    def attribute(self, *, now: float | None = None) -> None:
        """Find who imports whom and what unloading each package would free, where modules came or went since.

        Args:
            now: monotonic seconds: leave it for later where the last time, which looks at every module's globals (see
                `mempressure.packages.attribution`), was so recent that this would take more than `MOST_OF_THE_TIME`.
        """
        with self._lock:
            seen = (len(sys.modules), *(package.loads + package.unloads for package in self._packages.values()))
            if seen == self._attributed or (now is not None and now < self._next_attribution):
                return
            self._attributed = seen
            sizes = {name: package.import_bytes for name, package in self._packages.items() if _is_loaded(name)}
            imports: dict[str, set[str]] = {}
            for name in sizes:
                for importer in self._packages[name].importers:
                    imports.setdefault(importer, set()).add(name)
        began = time.thread_time()
        for name, others in references(sys.modules, owner=self._finder.owner, tracked=sizes).items():
            imports.setdefault(name, set()).update(others)
        freed = freed_if_removed(sizes, imports, roots=imports.get("", ()))
        with self._lock:
            for name, package in self._packages.items():
                package.freed_bytes = freed[name] if name in freed and package.importers else UNKNOWN
                package.imports = frozenset(imports.get(name, ()))
        if now is not None:
            self._next_attribution = now + (time.thread_time() - began) / MOST_OF_THE_TIME

    def states(self) -> list[PackageState]:
        """Return what is to be published of every tracked package."""
        with self._lock:
            packages = list(self._packages.values())
        states = [_state(package, self.reason_not_to_evict(package)) for package in packages]
        if not self.accessed_bit:
            for state in states:
                state.last_used = UNKNOWN
        return states

    @property
    def inherited(self) -> tuple[str, ...]:
        """Return the packages that were loaded when this process was forked."""
        return tuple(package.name for package in list(self._packages.values()) if package.inherited)

    def reason_not_to_evict(self, package: TrackedPackage) -> str:
        """Return why an opted-in package is not evicted, whatever its use; empty where it may be tried."""
        if not package.evict:
            return ""
        if package.inherited:
            return "it was loaded before this process was forked, and emptying it would unshare the parent's pages"
        if self.evict_unsupported:
            return self.evict_unsupported
        if 0 <= self._clock() - package.evict_refused_at < RETRY_SECONDS:
            return self._evict_refused(package.name) or package.evict_refused
        return self._evict_refused(package.name)

    def evict(self, name: str, *, idle_for: float | None = None) -> tuple[int, str | None]:
        """Empty a package in place (see `mempressure.eviction`), unless it is in use.

        Args:
            name: the package, or a module of it.
            idle_for: seconds that it must have been unused.

        Returns:
            The bytes that it gave back, measured, and None; or 0 and why it was left alone.
        """
        package = self._packages[name.partition(".")[0]]
        if not package.evict:
            return 0, "it was not opted in: declare it with evict=True"
        package.evict_refused = ""
        reason = self.reason_not_to_evict(package) or self._reason_in_use(package, idle_for)
        if reason:
            return 0, reason
        from mempressure.errors import EvictionRefusedError
        from mempressure.eviction import evict  # only paid for where something is evicted

        try:
            eviction = evict(package.name, unless=lambda: self._reason_in_use(package, idle_for), reserve=self._reserve)
        except EvictionRefusedError as error:
            if error.pins:
                package.evict_refused, package.evict_refused_at = error.explanation, self._clock()
            return 0, error.explanation
        with self._lock:
            package.unloads += 1
            package.reclaimed_bytes += eviction.reclaimed_bytes
            package.import_bytes = package.cumulative_bytes = 0
            package.unloaded_at = self._clock()
        self._on_change()
        return eviction.reclaimed_bytes, None

    def _reason_in_use(self, package: TrackedPackage, idle_for: float | None) -> str | None:
        self.tick()  # a use since the last tick counts
        with self._lock:
            if package.active:
                return "in use"
            idle = self._clock() - package.last_used
            # Long before its last use: the clock was set back.
            if idle_for is None or package.last_used < 0 or not -CLOCK_SET_BACK_SECONDS < idle < idle_for:
                return None
            return f"used {max(0.0, idle):.1f} s ago"

    def _find_modules(self) -> None:
        """List the modules to arm; the walk over `sys.modules` (0.3 ms for 2,000) only when modules came or went."""
        if len(sys.modules) == self._modules_seen:
            return
        self._modules_seen = len(sys.modules)
        found: dict[str, list[ModuleType]] = {}
        for name, module in list(sys.modules.items()):
            root = name.partition(".")[0]
            # Of their own class are lazy modules, which even reading `__name__` would load.
            plain = type(module) in (ModuleType, ArmedModule)
            if plain and root in self._packages and name.count(".") <= _ARMED_DEPTH:
                found.setdefault(root, []).append(module)
        self._modules = found


def _is_loaded(name: str) -> bool:
    hollow = sys.modules.get("mempressure.eviction.hollow")  # nothing is empty where it was never imported
    return name in sys.modules and (hollow is None or not hollow.is_hollow(name))


def _count_refault(package: TrackedPackage) -> None:
    unloaded, package.unloaded_at = package.unloaded_at, None
    now = package.last_used
    if unloaded is not None and is_refault(unloaded, now):
        since = 0.0 if package.last_refault < 0 else now - package.last_refault
        package.refaults += 1
        package.refault_level = raised(package.refault_level, since)
        package.last_refault = now
        package.refault_delay = max(0.0, now - unloaded)


def _state(package: TrackedPackage, evict_refused: str) -> PackageState:
    return PackageState(
        name=package.name,
        mechanism="evict" if package.evict and not evict_refused else "recycle",
        evict_refused=evict_refused,
        source="import",
        timeout=package.timeout,
        priority=package.priority,
        keep_loaded=package.keep_loaded,
        loaded=float(_is_loaded(package.name)),
        active_calls=float(package.active),
        imports=sorted(package.imports),
        memory_bytes=float(package.import_bytes),
        cumulative_bytes=float(package.cumulative_bytes) if package.importers else UNKNOWN,
        freed_bytes=package.freed_bytes,
        last_used=package.last_used,
        uses=float(package.uses),
        loads=float(package.loads),
        load_seconds=package.load_seconds,
        refaults=float(package.refaults),
        refault_level=package.refault_level,
        last_refault=package.last_refault,
        refault_delay=package.refault_delay,
        unloads=float(package.unloads),
        reclaimed_bytes=float(package.reclaimed_bytes),
    )
