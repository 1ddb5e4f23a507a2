"""The report on an OOM kill: its timeline, and why unloading did not prevent it. Pure functions of stored readings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds
from mempressure_actuator.inbox.leases import Lease
from mempressure_actuator.schemas import CycleDict

BEFORE_SECONDS = 120.0
"""How far back a report goes."""
MOST_REASONS = 5

Usage = tuple[float, float]
"""Unix seconds, and the ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Kills that were found: how many processes of a scope, and when that was noticed, in Unix seconds."""

    scope: str
    """app, or host if it was in no cgroup that is watched."""
    app: str
    cgroup: str
    """Its directory; empty for the host."""
    count: int
    detected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of the time before a kill."""

    usages: Sequence[Usage]
    """Of the scope, oldest first."""
    held: Mapping[str, Any] | None
    """What held memory at the last reading; None if there was none."""
    leases: Iterable[Lease]
    cycles: Sequence[CycleDict]
    """Newest first."""
    thresholds: Thresholds


def make_report(kill: Kill, evidence: Evidence) -> dict[str, Any]:
    """Return the report as plain data for JSON."""
    detected, scope, app = kill.detected, kill.scope, kill.app
    begin = detected - BEFORE_SECONDS
    usages = [(when, usage) for when, usage in evidence.usages if begin <= when <= detected]
    alerts = [lease for lease in evidence.leases if (lease.scope, lease.app) in ((scope, app), ("host", ""))]
    alerts = [lease for lease in alerts if lease.expires > begin and lease.opened <= detected]
    tried = [
        cycle for cycle in evidence.cycles if begin <= cycle["started"] <= detected and _concerns(cycle, scope, app)
    ]
    crossed = crossings(usages, evidence.thresholds)
    return {
        "version": 1,
        "detected": detected,
        "last_looked": usages[-1][0] if usages else None,
        "scope": scope,
        "app": app,
        "cgroup": kill.cgroup,
        "kills": kill.count,
        "why": why(usages=usages, crossed=crossed, alerts=alerts, tried=tried, detected=detected),
        "timeline": timeline(crossed=crossed, alerts=alerts, tried=tried, usages=usages, detected=detected),
        "held": evidence.held,
        "tried": tried,
    }


def crossings(usages: Iterable[Usage], thresholds: Thresholds) -> dict[str, float]:
    """Return when each threshold that held last was entered: at its enter ratio, and left below its exit ratio."""
    entered: dict[str, float] = {}
    for when, usage in usages:
        for name in THRESHOLD_NAMES:
            if usage >= thresholds.enter(name):
                entered.setdefault(name, when)
            elif usage < thresholds.exit(name):
                entered.pop(name, None)
    return entered


def timeline(
    *,
    crossed: Mapping[str, float],
    alerts: Iterable[Lease],
    tried: Iterable[CycleDict],
    usages: Sequence[Usage],
    detected: float,
) -> list[dict[str, Any]]:
    """Return the events before the kill, in order of time."""
    events = [(when, f"{name} was entered") for name, when in crossed.items()]
    events += [(lease.opened, f"alert of level {lease.level} arrived") for lease in alerts]
    for cycle in tried:
        events.append((cycle["started"], f"cycle began: {cycle['trigger']}, {cycle['strategy']}"))
        events += [
            (
                action["started"] + action["duration_seconds"],
                f"{action['mechanism']} {' '.join(action['packages'])}".rstrip()
                + f": {action['result']}, {action['reclaimed_bytes']} bytes",
            )
            for action in cycle["actions"]
        ]
        events.append((cycle["ended"], f"cycle ended: {cycle['outcome']}, usage {cycle['usage_after']:.4f}"))
    if usages:
        events.append((usages[-1][0], f"last reading: usage {usages[-1][1]:.4f}"))
    events.append((detected, "the kill was found"))
    return [{"time": when, "what": what} for when, what in sorted(events, key=lambda event: event[0])]


def why(
    *,
    usages: Sequence[Usage],
    crossed: Mapping[str, float],
    alerts: Sequence[Lease],
    tried: Sequence[CycleDict],
    detected: float,
) -> list[str]:
    """Return why the kill was not prevented: lines for people, the most important first."""
    if not usages:
        return ["nothing was measured before: the actuator did not run, had just started, or the scope had no limit"]
    last, usage = usages[-1]
    if "unload_packages" not in crossed:
        measured = f"usage was {usage:.2f} when it was last measured, {detected - last:.1f} s before: "
        rose = "it rose faster than it is measured, or one allocation was larger than what was left"
        return [measured + rose, *_what_was_tried(tried)]
    seconds = detected - crossed["unload_packages"]
    if not alerts and not tried:
        return [f"unload_packages was entered {seconds:.1f} s before, and no alert had arrived"]
    if not tried:
        first = detected - min(lease.opened for lease in alerts)
        return [f"an alert had arrived {first:.1f} s before, and no cycle found anything that could be unloaded"]
    return [*_what_was_tried(tried), f"unload_packages was entered {seconds:.1f} s before"]


def _what_was_tried(tried: Sequence[CycleDict]) -> list[str]:
    actions = [action for cycle in tried for action in cycle["actions"] if action["mechanism"] != "custom"]
    if not actions:
        return []
    lines = []
    done = [action for action in actions if action["result"] == "done"]
    freed = sum(action["reclaimed_bytes"] for action in done)
    if done:
        lines.append(f"{len(done)} actions gave back {freed} bytes, and more than that was allocated")
    if any(action["result"] == "dry_run" for action in actions):
        lines.append("actions were not carried out: it is a dry run (MEMPRESSURE_DRY_RUN)")
    reasons = [text for action in actions for text in (*action["errors"], *action["skipped"])]
    reasons += [f"{skip['package']} {skip['reason']}".strip() for cycle in tried for skip in cycle["skips"]]
    lines += [f"left alone: {reason}" for reason in list(dict.fromkeys(reasons))[:MOST_REASONS] if reason != "dry run"]
    return lines or ["no action gave memory back"]


def _concerns(cycle: CycleDict, scope: str, app: str) -> bool:
    return (cycle["scope"], cycle["app"]) in ((scope, app), ("host", "")) or scope == "host"
