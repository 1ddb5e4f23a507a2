"""Tracks packages that are imported in the worker itself: when they were used, what their import cost.

Use is seen by the accessed bit of their modules, which each tick of the agent reads and sets again: it *arms* them (see
`mempressure.packages.accessed_bit`). In a forked process nothing is done to the modules that it has from its parent
(see `mempressure.packages.own_modules`): what is known of those is what importing them cost, measured in the parent.
"""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType

from mempressure.decorators import Block, Marks
from mempressure.measure.reading import UNKNOWN
from mempressure.packages.accessed_bit import ArmedModule, arm, disarm, take_used
from mempressure.packages.attribution import freed_if_removed, references
from mempressure.packages.deferred_import import Import, TrackingFinder
from mempressure.packages.own_modules import OwnModules
from mempressure.packages.reservation import Reserve
from mempressure.state.records import SHARED_SOURCE, PackageState

_ARMED_DEPTH = 1
"""Of a tracked package the root and its direct children are armed: use goes through them, and arming sympy's 900
modules at each tick would cost more than it tells."""

MAX_TIME_SHARE = 0.01
"""Share of the time that a process may spend on finding which packages import which without a request for it."""


@dataclass(slots=True, kw_only=True)
class TrackedPackage:
    """One package imported in this process; bytes, seconds, Unix times."""

    name: str
    timeout: float
    priority: int
    keep_loaded: bool
    loads: int = 0
    load_seconds: float = 0.0
    import_bytes: int = 0
    """Memory that its imports added since it was tracked, without that of other tracked packages that they imported."""
    cumulative_bytes: int = 0
    """The same, with that of other tracked packages."""
    importers: set[str] = field(default_factory=set)
    """What was seen to import it: tracked packages, and "" for the application."""
    imports: frozenset[str] = frozenset()
    """Tracked packages that it imports, as of the last `update_attribution`."""
    freed_bytes: float = UNKNOWN
    """What unloading it would free, as of the last `update_attribution`."""
    last_used: float = UNKNOWN
    uses: int = 0
    """Ticks that saw a use, and `using` blocks."""
    open_uses: Marks = field(default_factory=Marks)
    """`using` blocks that are open now."""
    forks: int = 0
    """How often its process had been forked when it was loaded: fewer forks than now mean that it is the parent's."""
    late_since: int = -1
    """The start of serving (`PackageTracker.begin_serving`) that `late_bytes` counts from; others have been undone."""
    late_bytes: int = 0
    """The part of `import_bytes` that was added since this process began to serve."""


class PackageTracker:
    """Tracks packages that are imported in this process.

    Args:
        clock: Unix seconds.
        on_change: called after a tracked package was loaded.
        reserve: called before a package is imported on first use (see `mempressure.packages.deferred_import`).
        discover: says of a top-level name that is about to be imported whether to track it from now on.

    Attributes:
        accessed_bit: whether modules are armed; without it the idle time of packages is unknown.
        follows_discovered: whether the use of packages that were only discovered is followed too, and which of them
            imports which; otherwise what their import cost is all that is known of them.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        on_change: Callable[[], None] = lambda: None,
        reserve: Reserve | None = None,
        discover: Callable[[str], bool] | None = None,
    ) -> None:
        self.accessed_bit = True
        self.follows_discovered = True
        self._discover = discover
        self._clock = clock
        self._on_change = on_change
        self._packages: dict[str, TrackedPackage] = {}
        self._published: dict[str, TrackedPackage] = {}
        """Those of `states`: all but what was only discovered, and was loaded when this process was forked."""
        self._declared: dict[str, TrackedPackage] = {}
        self._lock = threading.Lock()
        self._own = OwnModules()
        self._forks = int(self._own.has_parents)
        """Raised by each fork. What a forked process need not write, it does not: that would unshare pages."""
        self._starts = 0
        """Raised by each fork and each start of serving."""
        self._imports = 0
        """How many imports were measured."""
        self._modules: dict[str, list[ModuleType]] = {}
        self._modules_seen = -1
        self._attributed = (-1, -1)
        self._next_attribution = 0.0
        self._finder = TrackingFinder(self._tracks, self, reserve=reserve)

    def _tracks(self, name: str) -> bool:
        return name in self._packages or (self._discover is not None and self._discover(name))

    def discover_all(self, discover: Callable[[str], bool]) -> None:
        """Track from now on what `discover` says, as a constructor's argument, without following its use."""
        self.follows_discovered = False
        self._discover = discover
        self._finder.install()

    def track(
        self, name: str, *, timeout: float, priority: int = 0, keep_loaded: bool = False, discovered: bool = False
    ) -> TrackedPackage:
        """Track the package that module `name` belongs to; the last options given hold.

        Args:
            name: of a module.
            timeout: seconds without use after which it is idle.
            priority: of two candidates the lower goes first.
            keep_loaded: whether the user wants it kept.
            discovered: it was met, not declared: a forked process does not publish it where its parent loaded it.
        """
        root = name.partition(".")[0]
        self._finder.install()
        with self._lock:
            package = self._packages.get(root)
            if package is None:
                package = TrackedPackage(
                    name=root, timeout=timeout, priority=priority, keep_loaded=keep_loaded, forks=self._forks
                )
                if root in sys.modules:  # imported before anyone could measure it
                    package.loads, package.last_used = 1, self._clock()
                    package.forks = 0  # where this process was forked, it has it from its parent
                self._packages[root] = package
                self._modules_seen = -1
            else:
                package.timeout, package.priority, package.keep_loaded = timeout, priority, keep_loaded
            self._published[root] = package
            if not discovered:
                self._declared[root] = package
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
        self._own.after_fork()
        self._modules = {}
        self._published = dict(self._declared)
        for package in self._packages.values():
            package.open_uses.clear()
        self._forks += 1
        self._starts += 1

    def own_modules(self) -> dict[str, ModuleType]:
        """Return the modules that this process did not have from its parent when it was forked."""
        return dict(self._own.items())

    def begin_serving(self) -> None:
        """Count from now on what is imported as imported late: the process takes work, and has what a fresh one has."""
        with self._lock:
            self._starts += 1

    @property
    def late_bytes(self) -> int:
        """Return what imports of tracked packages have added since `begin_serving`."""
        return sum(self._late_bytes(package) for package in list(self._published.values()))

    def _late_bytes(self, package: TrackedPackage) -> int:
        return package.late_bytes if package.late_since == self._starts else 0

    def _is_inherited(self, package: TrackedPackage) -> bool:
        return package.forks < self._forks and package.name in sys.modules

    def close(self) -> None:
        """Stop tracking: leave modules and the import system as they were."""
        self._finder.uninstall()
        for modules in self._modules.values():
            for module in modules:
                disarm(module)

    def __contains__(self, name: str) -> bool:
        return name.partition(".")[0] in self._packages

    def imported(self, measured: Import) -> None:
        """Count an import that crossed the package's boundary (see `mempressure.packages.deferred_import`)."""
        with self._lock:
            tracked = self._packages[measured.package]
            tracked.loads += measured.root
            tracked.load_seconds += measured.seconds
            tracked.import_bytes = max(0, tracked.import_bytes + measured.self_bytes)
            tracked.late_bytes = max(0, self._late_bytes(tracked) + measured.self_bytes)
            tracked.late_since = self._starts
            tracked.cumulative_bytes = max(0, tracked.cumulative_bytes + measured.cumulative_bytes)
            tracked.importers.add(measured.importer)
            tracked.last_used = self._clock()
            if measured.root:
                tracked.forks = self._forks
            self._published[measured.package] = tracked
            self._imports += 1
            for package in self._published.values():  # which imports which may have changed
                package.freed_bytes = UNKNOWN
        if self.follows_discovered or measured.package in self._declared:
            self._on_change()

    def using(self, name: str) -> Block:
        """Mark a package as in use for the length of a block."""
        package = self._packages[name.partition(".")[0]]
        return Block(partial(self._begin_use, package), partial(self._end_use, package))

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

    def update_attribution(self, *, now: float | None = None) -> None:
        """Find which packages import which and what unloading each would free, where modules came or went since.

        Args:
            now: monotonic seconds: leave it for later where the last time, which looks at every module's globals (see
                `mempressure.packages.attribution`), was so recent that this would take more than `MAX_TIME_SHARE`.
        """
        with self._lock:
            followed = self._followed()
            seen = (len(sys.modules), self._imports) if followed else self._attributed
            if seen == self._attributed or (now is not None and now < self._next_attribution):
                return
            self._attributed = seen
            sizes = {name: package.import_bytes for name, package in followed.items() if name in sys.modules}
            imports: dict[str, set[str]] = {}
            for name in sizes:
                for importer in followed[name].importers - {name}:  # one may load parts of itself lazily
                    imports.setdefault(importer, set()).add(name)
        began = time.thread_time()
        for name, others in references(self.own_modules(), owner=self._finder.owner, tracked=sizes).items():
            imports.setdefault(name, set()).update(others)
        freed = freed_if_removed(sizes, imports, roots=imports.get("", ()))
        with self._lock:
            for name, package in followed.items():
                package.freed_bytes = freed[name] if name in freed and package.importers else UNKNOWN
                package.imports = frozenset(imports.get(name, ()))
        if now is not None:
            self._next_attribution = now + (time.thread_time() - began) / MAX_TIME_SHARE

    def _followed(self) -> dict[str, TrackedPackage]:
        return self._published if self.follows_discovered else self._declared

    def states(self) -> list[PackageState]:
        """Return what is to be published of every tracked package."""
        with self._lock:
            packages = list(self._published.values())
        return [self._state(package) for package in packages]

    @property
    def inherited(self) -> tuple[str, ...]:
        """Return the declared packages that were loaded when this process was forked."""
        return tuple(package.name for package in list(self._declared.values()) if self._is_inherited(package))

    def _begin_use(self, package: TrackedPackage) -> None:
        with self._lock:
            package.uses += 1
        package.open_uses.add()

    def _end_use(self, package: TrackedPackage) -> None:
        # Without the lock: it may be the garbage collector that ends a generator, in a thread that holds it.
        package.open_uses.remove()
        package.last_used = self._clock()

    def _find_modules(self) -> None:
        """List the modules to arm; the walk over them (0.3 ms for 2,000) only when modules came or went."""
        if len(sys.modules) == self._modules_seen:
            return
        self._modules_seen = len(sys.modules)
        found: dict[str, list[ModuleType]] = {}
        followed = self._followed()
        for name, module in self._own.items() if followed else ():
            root = name.partition(".")[0]
            # Of their own class are lazy modules, which even reading `__name__` would load.
            plain = type(module) in (ModuleType, ArmedModule)
            if plain and root in followed and name.count(".") <= _ARMED_DEPTH:
                found.setdefault(root, []).append(module)
        self._modules = found

    def _sees_use(self, package: TrackedPackage) -> bool:
        return self.accessed_bit and not self._is_inherited(package) and package.name in self._followed()

    def _state(self, package: TrackedPackage) -> PackageState:
        inherited = self._is_inherited(package)
        return PackageState(
            name=package.name,
            mechanism="recycle",
            source=SHARED_SOURCE if inherited else "import",
            timeout=package.timeout,
            priority=package.priority,
            keep_loaded=package.keep_loaded,
            declared=package.name in self._declared,
            loaded=float(package.name in sys.modules),
            active_calls=float(len(package.open_uses)),
            imports=sorted(package.imports),
            memory_bytes=float(package.import_bytes),
            late_bytes=float(self._late_bytes(package)),
            cumulative_bytes=float(package.cumulative_bytes) if package.importers else UNKNOWN,
            freed_bytes=package.freed_bytes,
            last_used=package.last_used if self._sees_use(package) else UNKNOWN,
            uses=float(package.uses),
            loads=float(package.loads),
            load_seconds=package.load_seconds,
        )
