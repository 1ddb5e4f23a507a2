"""The contents of the status page, as texts and numbers for the templates. Pure functions."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mempressure.config.thresholds import PressureLevel, pressure_level
from mempressure.control.records import Scope
from mempressure.decide.inventory import AppDict, PackageDict
from mempressure.decide.summary import Observation, ScopeReport
from mempressure.state.records import PROCESS_SOURCE
from mempressure.units import UNKNOWN, duration, part, size
from mempressure_actuator.page.chart import Chart, draw
from mempressure_actuator.page.roles import AdviceView, RoleView, advice_views, role_views
from mempressure_actuator.schemas import ActionDict, CycleDict, UnloadedDict
from mempressure_actuator.store.usage_history import UsageSample

_STEADY = "steady"
_MOST_REASONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageView:
    """A row of an app's packages."""

    id: str
    name: str
    loaded: bool
    memory: str
    share: int
    """Memory in percent of the largest package of its app, 0-100."""
    idle: str
    timeout: str
    """The idle time after which it may be unloaded, as text."""
    mechanism: str
    note: str
    workers: str
    processes: str
    """How many package processes run and how many calls wait for one, as text; empty for other packages."""
    left: str
    """What results of its functions have imported into the workers, as text; empty where that is little."""
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeView:
    """The host, or an app with its roles, packages and advice."""

    id: str
    title: str
    app: str
    usage: float | None
    level: PressureLevel | None
    alert: str
    amount: str
    trend: str
    chart: Chart | None
    description: str
    """The chart in a sentence, for screen readers."""
    workers: int
    roles: tuple[RoleView, ...]
    packages: tuple[PackageView, ...]
    advice: tuple[AdviceView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionView:
    """One action, as a sentence and its result."""

    sentence: str
    result: str
    details: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleView:
    """A cycle of the control loop, or a request."""

    id: str
    ended: float
    ago: str
    where: str
    why: str
    usage: str
    actions: tuple[ActionView, ...]


def scope_views(
    observation: Observation,
    apps: Iterable[AppDict],
    *,
    samples: Callable[[Scope], Sequence[UsageSample]],
    cycles: Iterable[CycleDict],
) -> tuple[ScopeView, ...]:
    """Return the host, then every app by name.

    Args:
        observation: of the node.
        apps: their workers and packages, from the same reading.
        samples: returns the usage of a scope in the last hour.
        cycles: the newest ones; those that gave memory back are marked in the charts.
    """
    known = {app["app"]: app for app in apps}
    cycles = tuple(cycles)
    views = []
    for report in sorted(observation.scopes, key=lambda report: (report.scope != "host", report.app)):
        scope = (report.scope, report.app)
        marks = [
            cycle["ended"]
            for cycle in cycles
            if (cycle["scope"], cycle["app"]) == scope
            and any(action["reclaimed_bytes"] > 0 for action in cycle["actions"])
        ]
        chart = None
        if report.memory is not None:
            chart = draw(samples(scope), thresholds=observation.thresholds, marks=marks, now=observation.sampled)
        views.append(_scope_view(report, known.get(report.app), chart))
    return tuple(views)


def _scope_view(report: ScopeReport, app: AppDict | None, chart: Chart | None) -> ScopeView:
    memory = report.memory
    usage = memory.usage if memory else None
    return ScopeView(
        id=_id("scope", report.app),
        title=report.app or "Host",
        app=report.app,
        usage=usage,
        level=None if usage is None else pressure_level(usage),
        alert=report.alert.level if report.alert else "",
        amount=part(memory.used, memory.total) if memory else size(report.used_bytes),
        trend=_trend(report),
        chart=chart,
        description=_description(chart, usage),
        workers=len(app["workers"]) if app else 0,
        roles=role_views(app) if app else (),
        packages=package_views(app) if app else (),
        advice=advice_views(app) if app else (),
    )


def package_views(app: AppDict) -> tuple[PackageView, ...]:
    """Return the rows of an app's packages, by name."""
    most = max((package["memory_bytes"] for package in app["packages"]), default=0)
    return tuple(_package_view(app["app"], package, most) for package in app["packages"])


def _package_view(app: str, package: PackageDict, most: int) -> PackageView:
    loaded = package["loaded_workers"] > 0
    return PackageView(
        id=_id("package", app, package["package"]),
        name=package["package"],
        loaded=loaded,
        memory=size(package["memory_bytes"]) if loaded else UNKNOWN,
        share=round(100 * package["memory_bytes"] / most) if loaded and most else 0,
        idle=_idle(package) if loaded else "not loaded",
        timeout=f"timeout {duration(package['timeout'])}" if loaded else "",
        mechanism=package["mechanism"],
        note=_note(package),
        workers=f"{package['loaded_workers']} of {package['workers']}",
        processes=_processes(package),
        left=f"{size(package['result_bytes'])} in workers by results" if package["result_bytes"] >= 1 << 20 else "",
        kept=package["keep_loaded"],
    )


def _processes(package: PackageDict) -> str:
    if package["source"] != PROCESS_SOURCE:
        return ""
    waiting = package["waiting_calls"]
    number = _count(package["processes"], "process", "processes")
    return f"{number}, {_count(waiting, 'call waits', 'calls wait')}" if waiting else number


def cycle_views(cycles: Iterable[CycleDict], *, now: float) -> tuple[CycleView, ...]:
    """Return the views of `cycles`, in their order; `now` in Unix seconds."""
    return tuple(
        CycleView(
            id=_id("cycle", cycle["id"]),
            ended=cycle["ended"],
            ago=ago(now - cycle["ended"]),
            where=cycle["app"] or "host",
            why=_why(cycle),
            usage=f"{100 * cycle['usage_before']:.1f} % → {100 * cycle['usage_after']:.1f} %",
            actions=tuple(_action_view(action, cycle["app"]) for action in cycle["actions"]),
        )
        for cycle in cycles
    )


def unloaded_sentences(results: Iterable[UnloadedDict]) -> list[str]:
    """Return the results of an unload request, one sentence per app."""
    return [
        f"{result['package']} in {result['app']} was not unloaded: {result['skipped_reason']}"
        if result["skipped_reason"]
        else f"{result['package']} in {result['app']} unloaded by {result['mechanism']} in "
        f"{_count(result['workers'], 'worker')}, {size(result['reclaimed_bytes'])} given back"
        for result in results
    ]


def ago(seconds: float) -> str:
    """Return how long ago something was, in whole seconds."""
    return "just now" if seconds < 1 else f"{duration(round(seconds))} ago"


def announcement(scopes: Iterable[ScopeView]) -> str:
    """Return what a screen reader announces when it changes: levels and alerts, not the figures that always change."""
    levels = [f"{scope.title} {scope.level}" for scope in scopes if scope.level]
    alerts = [f"alert {scope.alert} on {scope.title}" for scope in scopes if scope.alert]
    return "Memory pressure: " + ", ".join(levels + alerts)


def _trend(report: ScopeReport) -> str:
    slope = report.series.slope
    if report.direction == "stable" or slope is None:
        return _STEADY
    return f"{'rising' if slope > 0 else 'falling'} {size(abs(slope) * 60)} a minute"


def _description(chart: Chart | None, usage: float | None) -> str:
    if chart is None or usage is None:
        return ""
    span = f"last {duration(chart.seconds)}" if chart.seconds >= 1 else "last second"
    return (
        f"Usage in the {span}: from {100 * chart.lowest:.0f} to {100 * chart.highest:.0f} percent, "
        f"now {100 * usage:.0f} percent"
    )


def _idle(package: PackageDict) -> str:
    if package["active_calls"]:
        return "in use"
    if package["idle_seconds"] is None:
        whole = package["worker_idle_seconds"]
        return "unknown" if whole is None else f"worker {duration(whole)}"
    return duration(package["idle_seconds"])


def _note(package: PackageDict) -> str:
    verdict = package["verdict"]
    return f"rehearsal: {verdict}" if verdict and verdict != package["mechanism"] else ""


def _why(cycle: CycleDict) -> str:
    if cycle["trigger"] == "api":
        return "forced by request" if cycle["strategy"] == "forced" else "on request"
    trigger = f"alert {cycle['alert_level']}".rstrip() if cycle["trigger"] == "webhook" else cycle["trigger"]
    how = f"{trigger}, strategy {cycle['strategy']}" if cycle["strategy"] else trigger
    return f"{how}: {cycle['reason']}" if cycle["reason"] else how


def _action_view(action: ActionDict, app: str) -> ActionView:
    reasons = [*action["errors"], *action["skipped"], *action["notes"]]
    left_out = len(reasons) - _MOST_REASONS
    details = "; ".join(reasons[:_MOST_REASONS]) + (f"; and {left_out} more" if left_out > 0 else "")
    what = f"{', '.join(action['packages'])} by {action['mechanism']}" if action["packages"] else action["mechanism"]
    where = f" in {action['app']}" if action["app"] != app else ""
    workers = _count(action["workers"], "worker")
    result = {
        "done": f"{size(action['reclaimed_bytes'])} from {workers}",
        "dry_run": f"dry run, {size(action['expected_bytes'])} expected",
        "skipped": "skipped",
        "failed": "failed",
    }
    return ActionView(sentence=f"{what}{where}:", result=result[action["result"]], details=details)


def _count(number: int, noun: str, several: str = "") -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {several or noun + 's'}"


def _id(kind: str, *names: str) -> str:
    """Return an HTML id; a hash, since names may contain any printable character."""
    return f"{kind}-{hashlib.sha256(chr(0).join(names).encode()).hexdigest()[:12]}"
