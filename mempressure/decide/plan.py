"""The plan of one cycle: which actions to take on which workers, from what was measured.

Each mechanism (`mempressure.act.mechanisms`) offers its actions, by the functions below; the plan puts them in order
and keeps to the strategy's limit. `mempressure.control.loop` makes a plan and has `mempressure.act.executor` carry it
out.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mempressure.config.thresholds import ALERT_LEVELS, entered
from mempressure.decide.alerts import callbacks_concerned, callbacks_due
from mempressure.decide.eligibility import Experience, Rules, Situation, Strategy, is_worth_replacing
from mempressure.decide.ranking import last_use, value_of
from mempressure.state.fresh import expected_bytes
from mempressure.state.node import AppReading
from mempressure.state.package_processes import Held, sets_of, together
from mempressure.state.records import SHARED_SOURCE, PackageState, WorkerState

TRIM_INTERVAL_SECONDS = 60.0
"""A worker is trimmed at most this often: a second pass soon after the first finds nothing."""

_INHERITED = "was loaded before the fork: its memory is shared with the parent"


@dataclass(frozen=True, slots=True)
class Target:
    """One worker that an action is for."""

    worker: WorkerState
    idle_for: Mapping[str, float] | None
    """How long, in seconds, each package concerned must still be unused when the worker acts; None for any time."""
    idle_seconds: float | None = None
    """How long the worker must still be without work then; None for any time."""
    sharing: tuple[WorkerState, ...] = ()
    """Other workers that share the processes concerned: one of them is asked where this one does not answer."""

    @property
    def workers(self) -> tuple[WorkerState, ...]:
        """Return all workers that what is done concerns, in the order to ask them."""
        return (self.worker, *self.sharing)


@dataclass(frozen=True, slots=True)
class Action:
    """One act of one mechanism on one or several workers of an app."""

    mechanism: str
    app: AppReading
    packages: tuple[str, ...]
    """What it unloads; empty where the mechanism unloads no packages, and for a worker that holds none."""
    targets: tuple[Target, ...]
    expected_bytes: int
    """What it should give back; what gives back far less is quarantined (see `mempressure.decide.quarantine`)."""
    reason: str
    level: str = "medium"
    """The alert level, which callbacks are given."""
    value: float = 0.0
    """The value of what it unloads, H in `mempressure.decide.ranking`; the ageing level is raised to it afterwards."""

    @property
    def workers(self) -> int:
        """Return how many workers it concerns."""
        return sum(len(target.workers) for target in self.targets)

    def held(self, package: str) -> list[Held]:
        """Return this package in each worker that it concerns, as it was when the plan was made."""
        workers = (worker for target in self.targets for worker in target.workers)
        return [(worker, each) for worker in workers for each in worker.packages if each.name == package]


@dataclass(frozen=True, slots=True)
class Skip:
    """A loaded package that is left alone, and why."""

    app: str
    package: str
    """Empty where it is about a worker that holds none."""
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The actions of one cycle, in the order to carry them out, and what was left alone."""

    actions: tuple[Action, ...]
    skips: tuple[Skip, ...]


class Planner(Protocol):
    """What a plan asks of a mechanism."""

    name: str
    unloads_packages: bool
    """Whether what it does counts for the limit of packages a cycle."""
    acts_below_unloading: bool
    """Whether it still acts between the exit and the entry of unload_packages (0.75 to 0.80 by default)."""

    def plan(self, apps: Sequence[AppReading], situation: Situation) -> tuple[Iterable[Action], Iterable[Skip]]:
        """Return the actions that are possible now, the best first, and what is left alone."""


def make_plan(
    apps: Iterable[AppReading],
    *,
    mechanisms: Iterable[Planner],
    usage: float,
    strategy: Strategy,
    rules: Rules,
    now: float,
    experience: Experience | None = None,
) -> Plan:
    """Return what one cycle should do for these apps, mildest mechanism first.

    Args:
        apps: the candidates: all of them for pressure on the host, one for its own.
        mechanisms: the ways to give memory back, mildest first (see `mempressure.act.mechanisms`).
        usage: of the scope under pressure, measured now.
        strategy: as `choose_strategy` gave it for this usage.
        rules: the operator's settings.
        now: Unix seconds, of the measurement.
        experience: what earlier cycles found; nothing by default.
    """
    if not rules.unloading_enabled:
        return Plan((), ())
    apps = list(apps)
    known = experience or Experience()
    mechanisms = list(mechanisms)
    situation = Situation(usage=usage, strategy=strategy, rules=rules, now=now, experience=known)
    actions: list[Action] = []
    skips: list[Skip] = []
    for mechanism in mechanisms:
        if usage >= rules.thresholds.unload_packages or mechanism.acts_below_unloading:
            possible, left_alone = mechanism.plan(apps, situation)
            actions += (action for action in possible if identity(action) not in known.futile)
            skips += left_alone
    counted = frozenset(mechanism.name for mechanism in mechanisms if mechanism.unloads_packages)
    chosen, left = _within_limit(actions, strategy.most_packages, counted)
    limit = f"the limit of {strategy.most_packages} packages a cycle is reached"
    skips += [Skip(action.app.name, package, limit) for action in left for package in action.packages or ("",)]
    return Plan(tuple(chosen), tuple(skips))


def identity(action: Action) -> tuple[object, ...]:
    """Name an action with the workers and loads it is for, so that it differs once anything about it changed."""
    held = frozenset(  # whichever of the workers that share processes is asked
        (
            worker.pid,
            worker.start_ticks,
            tuple(package.loads for package in worker.packages),
            None if target.idle_seconds is None else worker.last_work,
        )
        for target in action.targets
        for worker in target.workers
    )
    return (action.mechanism, action.app.name, action.packages, held)


def callbacks(apps: Iterable[AppReading], situation: Situation) -> tuple[list[Action], list[Skip]]:
    """Return an action for each app in whose workers callbacks are due, and the workers that cannot call theirs."""
    actions, skips = [], []
    level = ALERT_LEVELS[entered(situation.usage, situation.rules.thresholds)[-1]]
    for app in apps:
        targets = []
        for worker in app.workers:
            last_calls = situation.experience.called.get((worker.pid, worker.start_ticks), {})
            if not worker.serving or not callbacks_concerned(worker.callbacks_from, level):
                continue
            if not callbacks_due(last_calls, level, now=situation.now):
                continue
            if refused := worker.unsupported.get("on_pressure"):
                skips.append(Skip(app.name, "", f"worker {worker.pid}: its callbacks are not called: {refused}"))
            else:
                targets.append(Target(worker, {}))
        if targets:
            actions.append(Action("callbacks", app, (), tuple(targets), 0, f"at level {level}", level=level))
    return actions, skips


def trims(apps: Iterable[AppReading], situation: Situation) -> Iterator[Action]:
    """Yield an action for each worker that may be trimmed and was not a short time ago."""
    trimmed = situation.experience.trimmed
    for app in apps:
        for worker in app.workers:
            since = situation.now - trimmed.get((worker.pid, worker.start_ticks), -TRIM_INTERVAL_SECONDS)
            # Negative where the clock was set back: better once too often than never again.
            if worker.trim_refused or not worker.serving or 0 <= since < TRIM_INTERVAL_SECONDS:
                continue
            reason = "gives back garbage without unloading anything"
            yield Action("trim", app, (), (Target(worker, {}),), 0, reason)


def package_unloadings(
    mechanism: str, apps: Iterable[AppReading], situation: Situation
) -> tuple[list[Action], list[Skip]]:
    """Return an action for each package that the mechanism unloads, for the workers in which it is idle.

    Workers that share the package's processes are asked together, of which one is ordered: it is idle in all or none.
    """
    actions, skips = [], []
    for app in apps:
        for name, sets in _loaded(app, mechanism).items():
            refaulted = situation.refaulted(app, name)
            packages = [package for held in sets for _, package in together(held)]
            reasons = [
                _INHERITED if package.source == SHARED_SOURCE else situation.reason_to_keep(app, package, refaulted)
                for package in packages
            ]
            idle = [held for held, reason in zip(sets, reasons, strict=True) if reason is None]
            quarantined = situation.quarantined(app, [each for held in sets for each in held])
            if idle and quarantined:
                skips.append(Skip(app.name, name, quarantined))
            elif idle:
                targets = tuple(_target(held, {name: situation.idle_seconds(held[0][1], refaulted)}) for held in idle)
                every = [each for held in idle for each in held]
                actions.append(_unloading(mechanism, app, targets, every, situation, situation.why(every)))
            else:
                skips.append(Skip(app.name, name, reasons[0] or ""))
    return _in_order(actions, situation), skips


def _target(held: Sequence[Held], idle_for: Mapping[str, float]) -> Target:
    """Return the worker to order: one that serves, rather than one that has not published for a while."""
    workers = sorted((worker for worker, _ in held), key=lambda each: (not each.serving, -each.sampled, each.pid))
    return Target(workers[0], idle_for, sharing=tuple(workers[1:]))


def recycles(apps: Iterable[AppReading], situation: Situation) -> tuple[list[Action], list[Skip]]:
    """Return an action for each worker that a smaller one may replace: those that are idle, then those that have grown.

    A worker is idle as a whole, or all of its tracked packages are; one that is busy may have grown too much.
    """
    idle: list[Action] = []
    grown: list[Action] = []
    skips: list[Skip] = []
    for app in apps:
        for worker in app.workers:
            loaded = [package for package in worker.packages if _goes_with_its_worker(package)]
            if not loaded and not is_worth_replacing(app, worker):
                continue
            target, reason = _to_recycle(app, worker, loaded, situation)
            if target is None:
                names = [package.name for package in loaded] or [""]
                skips += [Skip(app.name, name, f"worker {worker.pid}: {reason}") for name in names]
                continue
            held = [(worker, package) for package in loaded]
            action = _unloading("recycle", app, (target,), held, situation, reason)
            is_idle = target.idle_for is not None or target.idle_seconds is not None
            (idle if is_idle else grown).append(replace(action, expected_bytes=_expected(app, worker, loaded)))
    # Of the busy ones those whose requests are fewest first, which have not long to be waited for.
    grown.sort(key=lambda action: (action.targets[0].worker.active_work, -action.expected_bytes))
    return [*_in_order(idle, situation), *grown], skips


def _goes_with_its_worker(package: PackageState) -> bool:
    """Return whether a loaded package is unloaded by replacing its worker, and was declared for that.

    What a worker has from its parent, its successor has too.
    """
    inherited = package.source == SHARED_SOURCE
    return bool(package.loaded and package.declared and not inherited) and package.mechanism == "recycle"


def _to_recycle(
    app: AppReading, worker: WorkerState, loaded: Sequence[PackageState], situation: Situation
) -> tuple[Target | None, str]:
    """Return what to have replaced and why, or None and why not; `loaded` are the packages that only this unloads."""
    reason = situation.reason_not_to_recycle(app, worker)
    if reason is None:
        reason = situation.recycling_quarantined(app, _expected(app, worker, loaded))
    if reason is not None:
        return None, reason
    busy = situation.reason_not_idle(app, worker)
    if busy is None:
        seconds = situation.worker_idle_seconds(worker)
        return Target(worker, None, idle_seconds=seconds), situation.why_idle(worker)
    kept = [f"{package.name} {why}" for package in loaded if (why := situation.reason_to_keep(app, package))]
    if loaded and not kept:
        idle_for = {package.name: situation.idle_seconds(package) for package in loaded}
        return Target(worker, idle_for), situation.why([(worker, package) for package in loaded])
    small = situation.reason_not_grown(app, worker)
    if small is None:
        return Target(worker, None), situation.why_grown(app, worker)
    # Where its server shows when it is idle, what is known of its packages' use does not matter.
    return None, kept[0] if kept and worker.last_work < 0 else f"{busy}; {small}"


def _expected(app: AppReading, worker: WorkerState, loaded: Iterable[PackageState]) -> int:
    """Return what replacing a worker gives back: at least its packages, where no fresh one was measured."""
    expected = expected_bytes(app, worker)
    return int(sum(package.memory_bytes for package in loaded) if expected < 0 else expected)


def _within_limit(actions: Iterable[Action], most: int, counted: Collection[str]) -> tuple[list[Action], list[Action]]:
    """Split actions into those of one cycle and the rest; one package of one app counts once, one without as one.

    Only the mechanisms that are `counted` count. The first is always taken: a worker that holds more packages than the
    limit could never be recycled.
    """
    chosen: list[Action] = []
    left: list[Action] = []
    taken: set[tuple[str, str | int]] = set()
    for action in actions:
        pairs: set[tuple[str, str | int]] = {(action.app.name, package) for package in action.packages}
        if not pairs and action.mechanism in counted:
            pairs = {(action.app.name, target.worker.pid) for target in action.targets}
        if taken and len(taken | pairs) > most:
            left.append(action)
        else:
            taken |= pairs
            chosen.append(action)
    return chosen, left


def _unloading(
    mechanism: str, app: AppReading, targets: tuple[Target, ...], held: list[Held], situation: Situation, reason: str
) -> Action:
    return Action(
        mechanism,
        app,
        tuple(dict.fromkeys(package.name for _, package in held)),
        targets,
        int(sum(package.memory_bytes for _, package in together(held))),
        reason,
        value=value_of(held, situation.experience.ageing),
    )


def _in_order(actions: list[Action], situation: Situation) -> list[Action]:
    """Order actions: the lowest priority first, then the least valuable, then the longest unused."""

    def rank(action: Action) -> tuple[int, float, float, str, tuple[str, ...], int]:
        held = [each for package in action.packages for each in action.held(package)]
        priority = max((package.priority for _, package in held), default=0)
        value = action.value if situation.rules.usage_pattern else 0.0
        at_work = [target.worker.last_work for target in action.targets if target.idle_seconds is not None]
        return (
            priority,
            value,
            max(at_work, default=last_use(held)),
            action.app.name,
            action.packages,
            action.targets[0].worker.pid,
        )

    return sorted(actions, key=rank)


def _loaded(app: AppReading, mechanism: str) -> dict[str, list[list[Held]]]:
    """Return the loaded packages of a mechanism by name, those of workers that share their processes together."""
    packages: dict[str, list[list[Held]]] = {}
    held = [(worker, each) for worker in app.workers for each in worker.packages if each.mechanism == mechanism]
    for each in sets_of(held):
        _, package = each[0]
        if package.loaded:
            packages.setdefault(package.name, []).append(each)
    return packages
