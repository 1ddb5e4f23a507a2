"""What to unload: pure functions from what was measured to what should be done.

Nothing here looks at a clock, a file or a process.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from mempressure.node import AppReading
from mempressure.state import PackageState, WorkerState
from mempressure.strategy import Strategy
from mempressure.thresholds import ALERT_LEVELS, Thresholds, entered

TRIM_INTERVAL_SECONDS = 60.0
"""A worker is trimmed at most this often: a second pass soon after the first finds nothing."""


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
    level: str = "medium"
    """The alert level of the pressure, for the application's `on_pressure` callbacks."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Situation:
    """What `make_plan` was given besides the apps."""

    usage: float
    strategy: Strategy
    rules: Rules
    now: float

    def reason_to_keep(self, app: AppReading, package: PackageState) -> str | None:
        if package.active_calls:
            return "is in use"
        kept = self.rules.keep_loaded(app.name, package.name, package.keep_loaded)
        if kept and not self.strategy.overrides_preferences:
            return "is kept loaded by preference"
        needed = self.strategy.idle_seconds(package.timeout)
        idle = self.now - package.last_used
        if package.last_used >= 0 and idle < needed:
            return f"was used {max(0.0, idle):.1f} s ago, idle is {needed:g} s"
        return None

    def reason_not_to_recycle(self, app: AppReading, worker: WorkerState) -> str | None:
        if worker.recycle_refused:
            return worker.recycle_refused
        if not worker.supervisor:
            return "no supervisor would replace it"
        if not worker.serving:
            return "is not serving"
        if self.now - worker.started < self.rules.recycle_min_lifetime:
            return f"lives for less than {self.rules.recycle_min_lifetime:g} s"
        sole = sum(other.serving for other in app.workers) == 1
        if sole and self.usage < self.rules.thresholds.emergency:
            return "is the only worker; recycled at emergency only"
        return None

    def why(self, held: Iterable[tuple[WorkerState, PackageState]]) -> str:
        used = (package.last_used if package.last_used >= 0 else worker.started for worker, package in held)
        return f"unused for {self.now - max(used):.0f} s under strategy {self.strategy.name}"


def make_plan(
    apps: Iterable[AppReading],
    *,
    usage: float,
    strategy: Strategy,
    rules: Rules,
    now: float,
    trimmed: Mapping[tuple[int, int], float] | None = None,
    futile: Collection[object] = (),
) -> Plan:
    """Return what one cycle should do for these apps, mildest mechanism first.

    Args:
        apps: the candidates: all of them for pressure on the host, one for its own.
        usage: of the scope under pressure, measured now.
        strategy: as `choose_strategy` gave it for this usage.
        rules: the operator's settings.
        now: Unix seconds, of the measurement.
        trimmed: when each worker, by (pid, start_ticks), was last trimmed.
        futile: identities of actions that brought nothing and are not worth repeating.
    """
    if not rules.unloading_enabled:
        return Plan((), ())
    apps = list(apps)
    situation = _Situation(usage=usage, strategy=strategy, rules=rules, now=now)
    stops, skips = _stops(apps, situation)
    trims: list[Action] = []
    recycles: list[Action] = []
    # Below unload_packages only the hosts of isolated packages end: nothing in a worker is touched.
    if usage >= rules.thresholds.unload_packages:
        trims = list(_trims(apps, situation, trimmed or {}))
        if _recycling_allowed(situation):
            recycles, refused = _recycles(apps, situation)
            skips += refused
    actions = [action for action in (*trims, *stops, *recycles) if identity(action) not in futile]
    chosen, left = _within_limit(actions, strategy.most_packages)
    limit = f"the limit of {strategy.most_packages} packages a cycle is reached"
    skips += [Skip(action.app.name, package, limit) for action in left for package in action.packages]
    return Plan(tuple(chosen), tuple(skips))


def identity(action: Action) -> tuple[object, ...]:
    """Name an action with the workers and loads it is for, so that it differs once anything about it changed."""
    held = tuple(
        (target.worker.pid, target.worker.start_ticks, tuple(package.loads for package in target.worker.packages))
        for target in action.targets
    )
    return (action.mechanism, action.app.name, action.packages, held)


def _trims(
    apps: Iterable[AppReading], situation: _Situation, trimmed: Mapping[tuple[int, int], float]
) -> Iterator[Action]:
    level = ALERT_LEVELS[entered(situation.usage, situation.rules.thresholds)[-1]]
    for app in apps:
        for worker in app.workers:
            since = situation.now - trimmed.get((worker.pid, worker.start_ticks), -TRIM_INTERVAL_SECONDS)
            # Negative where the clock was set back: better once too often than never again.
            if worker.trim_refused or not worker.serving or 0 <= since < TRIM_INTERVAL_SECONDS:
                continue
            reason = "gives back garbage without unloading anything"
            yield Action("trim", app, (), (Target(worker, {}),), 0, reason, level=level)


def _stops(apps: Iterable[AppReading], situation: _Situation) -> tuple[list[Action], list[Skip]]:
    actions, skips = [], []
    for app in apps:
        for name, holders in _loaded(app, "stop").items():
            reasons = [situation.reason_to_keep(app, package) for _, package in holders]
            idle = [held for held, reason in zip(holders, reasons, strict=True) if reason is None]
            if idle:
                targets = tuple(
                    Target(worker, {name: situation.strategy.idle_seconds(package.timeout)}) for worker, package in idle
                )
                size = int(sum(package.memory_bytes for _, package in idle))
                actions.append(Action("stop", app, (name,), targets, size, situation.why(idle)))
            else:
                skips.append(Skip(app.name, name, reasons[0] or ""))
    return sorted(actions, key=_rank), skips


def _recycles(apps: Iterable[AppReading], situation: _Situation) -> tuple[list[Action], list[Skip]]:
    actions, skips = [], []
    for app in apps:
        for worker in app.workers:
            held = [package for package in worker.packages if package.loaded and package.mechanism == "recycle"]
            if not held:
                continue
            kept = ((package.name, situation.reason_to_keep(app, package)) for package in held)
            busy = next((f"{name} {reason}" for name, reason in kept if reason), None)
            reason = situation.reason_not_to_recycle(app, worker) or busy
            if reason:
                skips += [Skip(app.name, package.name, f"worker {worker.pid}: {reason}") for package in held]
                continue
            idle_for = {package.name: situation.strategy.idle_seconds(package.timeout) for package in held}
            size = int(sum(package.memory_bytes for package in held))
            why = situation.why((worker, package) for package in held)
            actions.append(Action("recycle", app, tuple(idle_for), (Target(worker, idle_for),), size, why))
    return sorted(actions, key=_rank), skips


def _recycling_allowed(situation: _Situation) -> bool:
    rules = situation.rules
    if rules.recycle_from == "never":
        return False
    if rules.recycle_from == "emergency":
        return situation.usage >= rules.thresholds.emergency
    return rules.recycle_from == "normal" or situation.strategy.name != "normal"


def _within_limit(actions: Iterable[Action], most: int) -> tuple[list[Action], list[Action]]:
    """Split actions into those of one cycle and the rest; one package of one app counts once, trimming nothing.

    The first that unloads is always taken: a worker that holds more packages than the limit could never be recycled.
    """
    chosen: list[Action] = []
    left: list[Action] = []
    counted: set[tuple[str, str]] = set()
    for action in actions:
        pairs = {(action.app.name, package) for package in action.packages}
        if counted and len(counted | pairs) > most:
            left.append(action)
        else:
            counted |= pairs
            chosen.append(action)
    return chosen, left


def _rank(action: Action) -> tuple[int, float, str, tuple[str, ...], int]:
    """Order actions: the lowest priority first, then the longest unused."""
    held = [p for target in action.targets for p in target.worker.packages if p.name in action.packages]
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
