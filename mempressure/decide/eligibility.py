"""Which packages may be unloaded and which workers recycled now, and the reason for each that is left alone.

The strategy says how hard to unload: it is chosen from the usage measured now, not from the alert that was raised.
The worker checks again when the order arrives (`mempressure.act.mechanisms`).

A *refault* is a package's loading again soon after it was unloaded (see `mempressure.decide.backoff`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from mempressure.config.thresholds import DEFAULT_CRITICAL_RATIO, Thresholds
from mempressure.decide.alerts import LastCalls
from mempressure.decide.backoff import decayed, factor
from mempressure.decide.quarantine import Key, Quarantined, in_force, reason, recycling_in_force
from mempressure.decide.ranking import Ageing
from mempressure.measure.reading import CLOCK_SET_BACK_SECONDS
from mempressure.state.fresh import expected_bytes, fresh_bytes, worker_bytes
from mempressure.state.node import AppReading
from mempressure.state.package_processes import Held, shared_names
from mempressure.state.records import PROCESS_SOURCE, PackageState, WorkerState

RECYCLE_LEAST_SHARE = 0.1
RECYCLE_LEAST_BYTES = 4 << 20
"""A worker is replaced only where this share of it, and this much, would be given back: where a fresh worker is no
smaller, replacing workers would never end (celery#4125)."""
GROWTH_SHARE = 0.5
GROWTH_BYTES = 32 << 20
"""A busy worker is replaced where it has grown by this share of a fresh one, and by this much, unless set otherwise."""
GROWTH_LIFETIMES = 10
"""A busy worker lives so many times as long as an idle one before it may be replaced: what its successor needs to warm
up must not be all that it does."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How hard to unload: see the table in docs/concepts.md."""

    name: str
    most_packages: int
    """How many (app, package) pairs one cycle may unload."""
    pause_seconds: float
    """How long to wait after a cycle before the next."""
    overrides_preferences: bool

    def idle_seconds(self, timeout: float) -> float:
        """Return how long a package with this timeout must have been unused to be a candidate."""
        if self.name == "critical":
            return min(30.0, timeout / 2)
        return timeout / 2 if self.name == "high" else timeout


def choose_strategy(
    usage: float, thresholds: Thresholds, *, critical_ratio: float = DEFAULT_CRITICAL_RATIO, increasing: bool = False
) -> Strategy:
    """Return the strategy for a usage: normal, high from aggressive_unload on, critical from `critical_ratio` on."""
    if usage >= critical_ratio:
        return Strategy("critical", 10, 0.0, overrides_preferences=True)
    if usage >= thresholds.aggressive_unload:
        return Strategy("high", 8 if increasing else 7, 5.0, overrides_preferences=True)
    return Strategy("normal", 5, 15.0, overrides_preferences=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the operator settled on; everything a plan needs besides measurements."""

    thresholds: Thresholds
    keep_loaded: Callable[[str, str, bool], bool]
    """(app, package, declared) -> whether the user wants it kept."""
    recycle_from: str = "high"
    """From when on workers are recycled: normal, high (the strategy), emergency (the threshold) or never."""
    recycle_min_lifetime: float = 60.0
    recycle_growth: float | None = None
    """Bytes of growth from which a busy worker is replaced, 0 for never; None for `GROWTH_SHARE` and `GROWTH_BYTES`."""
    unloading_enabled: bool = True
    usage_pattern: bool = True
    """Whether what is used seldom and cheap to reload goes first, rather than what was used longest ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """What earlier cycles found, and the next one should know."""

    trimmed: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """When each worker, by (pid, start_ticks), was last trimmed, in Unix seconds."""
    called: Mapping[tuple[int, int], LastCalls] = field(default_factory=dict)
    """When the callbacks of each worker were last called in this episode of pressure."""
    futile: Collection[object] = ()
    """Identities of actions that brought nothing and are not worth repeating."""
    ageing: Ageing = field(default_factory=Ageing)
    """As `mempressure.decide.ranking.observed` gave it for all apps."""
    quarantine: Mapping[Key, Quarantined] = field(default_factory=dict)
    """As `mempressure.decide.quarantine.judged` gave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a plan is made from besides the apps."""

    usage: float
    strategy: Strategy
    rules: Rules
    now: float
    experience: Experience

    def refaulted(self, app: AppReading, name: str) -> PackageState | None:
        """Return package `name` of the app's worker in which its backoff level is highest; None where all are 0."""
        found = (package for worker in app.workers for package in worker.packages if package.name == name)
        return max((package for package in found if self._level(package)), key=self._level, default=None)

    def idle_seconds(self, package: PackageState, refaulted: PackageState | None = None) -> float:
        """Return how many seconds a package must have been unused to be unloaded.

        It is longer where `refaulted`, the same package in any worker of the app, was loaded again too soon.
        """
        needed = self.strategy.idle_seconds(package.timeout)
        # Where the kernel is about to kill something, loading twice is the lesser evil.
        if refaulted is None or self.strategy.name == "critical":
            return needed
        return needed * factor(self._level(refaulted))

    def _level(self, package: PackageState) -> float:
        return decayed(package.refault_level, self.now - package.last_refault) if package.last_refault >= 0 else 0.0

    def reason_to_keep(
        self, app: AppReading, package: PackageState, refaulted: PackageState | None = None
    ) -> str | None:
        """Return why a package is left alone; None where it may be unloaded."""
        if package.active_calls:
            return "is in use"
        kept = self.rules.keep_loaded(app.name, package.name, package.keep_loaded)
        if kept and not self.strategy.overrides_preferences:
            return "is kept loaded by preference"
        needed = self.idle_seconds(package, refaulted)
        idle = self.now - package.last_used
        if package.last_used < 0:
            # One in a process of its own and without a call has never been used there.
            return None if package.source == PROCESS_SOURCE else "has an unknown idle time"
        # A last use further in the future dates from before the clock was set back: long ago.
        if not -CLOCK_SET_BACK_SECONDS < idle < needed:
            return None
        if refaulted is not None and needed > self.strategy.idle_seconds(package.timeout):
            delay = refaulted.refault_delay
            return f"was loaded again {delay:.0f} s after its last unloading; left alone for {needed:.0f} s"
        return f"was used {max(0.0, idle):.1f} s ago, idle is {needed:g} s"

    def quarantined(self, app: AppReading, held: Iterable[Held]) -> str | None:
        """Return why one package is left alone though it is idle: unloading it gave back too little; else None."""
        held = list(held)
        _, package = held[0]
        entry = in_force(self.experience.quarantine, (app.name, package.name, package.mechanism), held, now=self.now)
        return None if entry is None else reason(entry, package.mechanism, now=self.now)

    def reason_not_to_recycle(self, app: AppReading, worker: WorkerState) -> str | None:
        """Return why a worker is not replaced, whatever it holds; None where it may be."""
        return (
            self._reason_recycling_has_not_begun()
            or worker.recycle_refused
            or self._reason_not_to_replace(app, worker)
            or _reason_it_is_no_larger(app, worker)
        )

    def _reason_not_to_replace(self, app: AppReading, worker: WorkerState) -> str | None:
        if not worker.supervisor:
            return "no supervisor would replace it"
        if not worker.serving:
            return "is not serving"
        if self.now - worker.started < self.rules.recycle_min_lifetime:
            return f"lives for less than {self.rules.recycle_min_lifetime:g} s"
        changing = next((other.pid for other in app.workers if not other.serving), None)
        if changing is not None:
            return f"is left alone until worker {changing} serves or is gone: one of an app is replaced at a time"
        if len(app.workers) == 1 and self.usage < self.rules.thresholds.emergency:
            return "is the only worker; recycled at emergency only"
        return None

    def _reason_recycling_has_not_begun(self) -> str | None:
        if self.rules.recycle_from == "never":
            return "workers are never recycled (MEMPRESSURE_RECYCLE=never)"
        begun = {
            "normal": True,
            "high": self.strategy.name != "normal",
            "emergency": self.usage >= self.rules.thresholds.emergency,
        }
        if begun[self.rules.recycle_from]:
            return None
        return f"workers are recycled from {self.rules.recycle_from} on (MEMPRESSURE_RECYCLE)"

    def reason_not_idle(self, app: AppReading, worker: WorkerState) -> str | None:
        """Return why a worker is not idle as a whole; None where it is, whatever is known of its packages' use."""
        if worker.active_work:
            return f"has {worker.active_work:.0f} requests or tasks under way"
        if worker.last_work < 0 or worker.idle_timeout < 0:
            return "cannot tell whether it is idle"
        idle, needed = self.now - worker.last_work, self.worker_idle_seconds(worker)
        if -CLOCK_SET_BACK_SECONDS < idle < needed:
            return f"was at work {max(0.0, idle):.1f} s ago, idle is {needed:g} s"
        shared = shared_names(app.workers, worker)
        for package in worker.packages:
            # Package processes that other workers share stay, but a call of this worker is not to be cut off.
            if package.loaded and (package.active_calls or package.name not in shared):
                # Its last use is known now: the worker's last work, at the latest.
                last_used = worker.last_work if package.last_used < 0 else min(package.last_used, worker.last_work)
                if kept := self.reason_to_keep(app, package.replaced(last_used=last_used)):
                    return f"{package.name} {kept}"
        return None

    def worker_idle_seconds(self, worker: WorkerState) -> float:
        """Return how many seconds a worker must have been without work to be idle as a whole."""
        return self.strategy.idle_seconds(worker.idle_timeout)

    def growth(self, app: AppReading, worker: WorkerState) -> float:
        """Return by how many bytes a worker itself, without what it imported late, has outgrown a fresh one."""
        # A busy worker's successor imports the same again.
        return worker.private_bytes - fresh_bytes(app, worker) - max(0.0, worker.late_bytes)

    def growth_needed(self, app: AppReading, worker: WorkerState) -> float:
        """Return from how many bytes of growth on a worker is replaced though it is busy."""
        if self.rules.recycle_growth is not None:
            return self.rules.recycle_growth
        return max(GROWTH_BYTES, GROWTH_SHARE * fresh_bytes(app, worker))

    def reason_not_grown(self, app: AppReading, worker: WorkerState) -> str | None:
        """Return why a busy worker is not replaced for its growth; None where it may be."""
        if self.rules.recycle_growth == 0:
            return "a busy worker is never replaced for its growth (MEMPRESSURE_RECYCLE_GROWTH=0)"
        if fresh_bytes(app, worker) < 0:
            return "what a fresh one takes is not known"
        growth, needed = self.growth(app, worker), self.growth_needed(app, worker)
        if growth < needed:
            return f"it has grown by {max(0.0, growth) / 2**20:.1f} MiB, which is below {needed / 2**20:.1f} MiB"
        if self.strategy.name not in ("high", "critical"):
            return "a busy worker is replaced for its growth from strategy high on"
        lifetime = GROWTH_LIFETIMES * self.rules.recycle_min_lifetime
        if self.now - worker.started < lifetime:
            return f"a busy worker is replaced for its growth once it has lived for {lifetime:g} s"
        used = next((package.name for package in worker.packages if package.loaded and package.active_calls), None)
        return None if used is None else f"{used} is in use"

    def recycling_quarantined(self, app: AppReading, expected: float) -> str | None:
        """Return why no worker of an app is replaced though one may be: others gave back too little; else None."""
        entry = recycling_in_force(self.experience.quarantine, app.name, expected, now=self.now)
        return None if entry is None else reason(entry, "recycle", now=self.now)

    def why(self, held: Iterable[Held]) -> str:
        """Return the reason to unload these, for people to read."""
        used = (package.last_used if package.last_used >= 0 else worker.started for worker, package in held)
        return f"unused for {self.now - max(used):.0f} s under strategy {self.strategy.name}"

    def why_idle(self, worker: WorkerState) -> str:
        """Return the reason to replace a worker that is idle as a whole, for people to read."""
        return f"without work for {self.now - worker.last_work:.0f} s under strategy {self.strategy.name}"

    def why_grown(self, app: AppReading, worker: WorkerState) -> str:
        """Return the reason to replace a worker that is busy, for people to read."""
        return f"grown by {self.growth(app, worker) / 2**20:.1f} MiB under strategy {self.strategy.name}"


def is_worth_replacing(app: AppReading, worker: WorkerState) -> bool:
    """Return whether a worker is known to be so much larger than a fresh one that replacing it pays."""
    return expected_bytes(app, worker) >= max(RECYCLE_LEAST_BYTES, RECYCLE_LEAST_SHARE * worker_bytes(app, worker))


def _reason_it_is_no_larger(app: AppReading, worker: WorkerState) -> str | None:
    """Return why a fresh worker would be no smaller; None where it would be, or where that was not measured."""
    fresh = fresh_bytes(app, worker)
    if fresh < 0 or is_worth_replacing(app, worker):
        return None
    return (
        f"holds {worker_bytes(app, worker) / 2**20:.1f} MiB and a fresh one {fresh / 2**20:.1f} MiB: recycling it "
        f"would give back less than {RECYCLE_LEAST_SHARE:.0%}, or than {RECYCLE_LEAST_BYTES >> 20} MiB"
    )
