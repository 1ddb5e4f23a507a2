"""What to unload: pure functions from what was measured to what should be done.

Nothing here looks at a clock, a file or a process. The strategy is chosen from the usage measured now, never from the
alert that drew attention to it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mempressure.configuration import RECYCLE_CHOICES
from mempressure.node import AppReading
from mempressure.state import PackageState, WorkerState
from mempressure.thresholds import Thresholds

TRIM_INTERVAL_SECONDS = 60.0
"""A worker is trimmed at most this often: a second pass soon after the first finds nothing."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How hard to unload: see the table in docs/concepts.md."""

    name: str
    most_packages: int
    """(app, package) pairs a cycle."""
    pause_seconds: float
    """Until the next cycle."""
    overrides_preferences: bool

    def idle_seconds(self, timeout: float) -> float:
        """Return how long a package with this timeout must have been unused to be a candidate."""
        if self.name == "critical":
            return min(30.0, timeout / 2)
        return timeout / 2 if self.name == "high" else timeout


def choose_strategy(
    usage: float, thresholds: Thresholds, *, critical_ratio: float = 0.95, increasing: bool = False
) -> Strategy:
    """Return the strategy for a usage: normal, high from aggressive_unload on, critical from `critical_ratio` on."""
    if usage >= critical_ratio:
        return Strategy("critical", 10, 0.0, overrides_preferences=True)
    if usage >= thresholds.aggressive_unload:
        return Strategy("high", 8 if increasing else 7, 5.0, overrides_preferences=True)
    return Strategy("normal", 5, 15.0, overrides_preferences=False)


@dataclass(frozen=True, slots=True)
class Target:
    """One worker that an action is for."""

    worker: WorkerState
    idle_for: Mapping[str, float]
    """How long, in seconds, each package concerned must still be unused when the worker acts."""


@dataclass(frozen=True, slots=True)
class Action:
    """One act: trim a worker, stop a package's hosts, or recycle a worker."""

    mechanism: str
    app: AppReading
    packages: tuple[str, ...]
    """What it unloads; empty for trim."""
    targets: tuple[Target, ...]
    expected_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Skip:
    """A loaded package that is left alone, and why."""

    app: str
    package: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The actions of one cycle, in the order to carry them out, and what was left alone."""

    actions: tuple[Action, ...]
    skips: tuple[Skip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the operator settled on; everything a plan needs besides measurements."""

    thresholds: Thresholds
    keep_loaded: Callable[[str, str, bool], bool]
    """(app, package, declared) -> whether the user wants it kept."""
    recycle_from: str = "high"
    recycle_min_lifetime: float = 60.0
    unloading_enabled: bool = True


def make_plan(
    apps: Iterable[AppReading],
    *,
    usage: float,
    strategy: Strategy,
    rules: Rules,
    now: float,
    trimmed: Mapping[tuple[int, int], float] | None = None,
) -> Plan:
    """Return what one cycle should do for these apps, mildest mechanism first.

    Args:
        apps: the candidates: all of them for pressure on the host, one for its own.
        usage: of the scope under pressure, measured now.
        strategy: as `choose_strategy` gave it for this usage.
        rules: the operator's settings.
        now: Unix seconds, of the measurement.
        trimmed: when each worker, by (pid, start_ticks), was last trimmed.
    """
    if not rules.unloading_enabled:
        return Plan((), ())
    apps = list(apps)
    # Below unload_packages only the hosts of isolated packages end: nothing in a worker is touched.
    stop_only = usage < rules.thresholds.unload_packages
    stops, skips = _stops(apps, strategy=strategy, rules=rules, now=now)
    actions: list[Action] = [] if stop_only else list(_trims(apps, now=now, trimmed=trimmed or {}))
    chosen, left = _most_valuable(stops, strategy.most_packages)
    actions += chosen
    if not stop_only and _recycling_allowed(strategy, usage, rules):
        emergency = usage >= rules.thresholds.emergency
        recycles, refused = _recycles(apps, strategy=strategy, rules=rules, now=now, emergency=emergency)
        chosen, more_left = _most_valuable(recycles, strategy.most_packages - len(chosen))
        actions += chosen
        left += more_left
        skips += refused
    limit = f"the limit of {strategy.most_packages} packages a cycle is reached"
    skips += [Skip(action.app.name, package, limit) for action in left for package in action.packages]
    return Plan(tuple(actions), tuple(skips))


def _trims(apps: Iterable[AppReading], *, now: float, trimmed: Mapping[tuple[int, int], float]) -> Iterator[Action]:
    for app in apps:
        for worker in app.workers:
            last = trimmed.get((worker.pid, worker.start_ticks))
            if worker.trim_refused or not worker.serving or (last is not None and now - last < TRIM_INTERVAL_SECONDS):
                continue
            yield Action("trim", app, (), (Target(worker, {}),), 0, "gives back garbage without unloading anything")


def _stops(
    apps: Iterable[AppReading], *, strategy: Strategy, rules: Rules, now: float
) -> tuple[list[Action], list[Skip]]:
    actions, skips = [], []
    for app in apps:
        for name, holders in _loaded(app, "stop").items():
            idle: list[Target] = []
            reasons: list[str] = []
            for worker, package in holders:
                reason = _reason_to_keep(app, package, strategy=strategy, rules=rules, now=now)
                if reason:
                    reasons.append(reason)
                else:
                    idle.append(Target(worker, {name: strategy.idle_seconds(package.timeout)}))
            if idle:
                size = sum(p.memory_bytes for w, p in holders if any(t.worker is w for t in idle))
                actions.append(Action("stop", app, (name,), tuple(idle), int(size), _why(strategy, holders, now)))
            else:
                skips.append(Skip(app.name, name, reasons[0]))
    return actions, skips


def _recycles(
    apps: Iterable[AppReading], *, strategy: Strategy, rules: Rules, now: float, emergency: bool
) -> tuple[list[Action], list[Skip]]:
    actions, skips = [], []
    for app in apps:
        for worker in app.workers:
            held = [package for package in worker.packages if package.loaded and package.mechanism == "recycle"]
            if not held:
                continue
            reason = _reason_not_to_recycle(app, worker, rules=rules, now=now, emergency=emergency)
            busy = None
            for package in held:
                kept = _reason_to_keep(app, package, strategy=strategy, rules=rules, now=now)
                if kept and package.name:
                    busy = busy or f"{package.name} {kept}"
            if reason or busy:
                skips += [Skip(app.name, package.name, f"worker {worker.pid}: {reason or busy}") for package in held]
                continue
            idle_for = {package.name: strategy.idle_seconds(package.timeout) for package in held}
            size = int(sum(package.memory_bytes for package in held))
            why = _why(strategy, [(worker, package) for package in held], now)
            actions.append(Action("recycle", app, tuple(idle_for), (Target(worker, idle_for),), size, why))
    return actions, skips


def _reason_to_keep(
    app: AppReading, package: PackageState, *, strategy: Strategy, rules: Rules, now: float
) -> str | None:
    if package.active_calls:
        return "is in use"
    if not strategy.overrides_preferences and rules.keep_loaded(app.name, package.name, package.keep_loaded):
        return "is kept loaded by preference"
    needed = strategy.idle_seconds(package.timeout)
    idle = now - package.last_used
    if package.last_used >= 0 and idle < needed:
        return f"was used {max(0.0, idle):.1f} s ago, idle is {needed:g} s"
    return None


def _reason_not_to_recycle(
    app: AppReading, worker: WorkerState, *, rules: Rules, now: float, emergency: bool
) -> str | None:
    if worker.recycle_refused:
        return worker.recycle_refused
    if not worker.supervisor:
        return "no supervisor would replace it"
    if not worker.serving:
        return "is not serving"
    if now - worker.started < rules.recycle_min_lifetime:
        return f"lives for less than {rules.recycle_min_lifetime:g} s"
    if sum(other.serving for other in app.workers) == 1 and not emergency:
        return "is the only worker; recycled at emergency only"
    return None


def _recycling_allowed(strategy: Strategy, usage: float, rules: Rules) -> bool:
    if rules.recycle_from == "never":
        return False
    if rules.recycle_from == "emergency":
        return usage >= rules.thresholds.emergency
    order = RECYCLE_CHOICES.index
    reached = "normal" if strategy.name == "normal" else "high"
    return order(reached) >= order(rules.recycle_from)


def _most_valuable(actions: Sequence[Action], room: int) -> tuple[list[Action], list[Action]]:
    """Split actions into those that fit and the rest: lowest priority first, then the longest unused."""
    chosen: list[Action] = []
    left: list[Action] = []
    counted: set[tuple[str, str]] = set()
    for action in sorted(actions, key=_rank):
        pairs = {(action.app.name, package) for package in action.packages}
        if len(counted | pairs) > room:
            left.append(action)
        else:
            counted |= pairs
            chosen.append(action)
    return chosen, left


def _rank(action: Action) -> tuple[int, float, str, tuple[str, ...], int]:
    held = [p for t in action.targets for p in t.worker.packages if p.name in action.packages]
    priority = max(package.priority for package in held)
    last_used = max(package.last_used for package in held)
    return (priority, last_used, action.app.name, action.packages, action.targets[0].worker.pid)


def _loaded(app: AppReading, mechanism: str) -> dict[str, list[tuple[WorkerState, PackageState]]]:
    packages: dict[str, list[tuple[WorkerState, PackageState]]] = {}
    for worker in app.workers:
        for package in worker.packages:
            if package.loaded and package.mechanism == mechanism:
                packages.setdefault(package.name, []).append((worker, package))
    return packages


def _why(strategy: Strategy, holders: Sequence[tuple[WorkerState, PackageState]], now: float) -> str:
    idle = min(
        now - package.last_used if package.last_used >= 0 else now - worker.started for worker, package in holders
    )
    return f"unused for {idle:.0f} s under strategy {strategy.name}"
