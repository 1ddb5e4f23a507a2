"""The report on a kill: a pure function of what was kept, with the timeline and why nothing helped in time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds
from mempressure_actuator.inbox.leases import Lease
from mempressure_actuator.schemas import CycleDict

BEFORE_SECONDS = 120.0
"""How far back a report looks."""
MOST_REASONS = 5

Usage = tuple[float, float]
"""When, and the ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """What was found: how many processes of a scope were killed, and when that was seen, in Unix seconds."""

    scope: str
    """app, or host where it was in no cgroup that is known."""
    app: str
    cgroup: str
    """Its directory; empty for the host."""
    count: int
    detected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was kept of the time before."""

    usages: Sequence[Usage]
    """Of the scope, oldest first."""
    held: Mapping[str, Any] | None
    """Who held what when it was last looked at; None where it never was."""
    leases: Iterable[Lease]
    cycles: Sequence[CycleDict]
    """Newest first."""
    thresholds: Thresholds


def make_report(kill: Kill, evidence: Evidence) -> dict[str, Any]:
    """Return the report, as JSON."""
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
    """Return when each threshold that held at the last was entered, by the same deadband as everywhere."""
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
    """Return what happened, in order."""
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
        events.append((usages[-1][0], f"last look: usage {usages[-1][1]:.4f}"))
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
    """Return why what was done was too late, or nothing was done: lines for people, the most telling first."""
    if not usages:
        return ["nothing was measured before: the actuator did not run, had just started, or the scope had no limit"]
    last, usage = usages[-1]
    if "unload_packages" not in crossed:
        looked = f"usage was {usage:.2f} when it was last looked at, {detected - last:.1f} s before: "
        rose = "it rose faster than anybody looks, or one request for memory was larger than what was left"
        return [looked + rose, *_what_was_tried(tried)]
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
        lines.append(f"{len(done)} actions gave back {freed} bytes, and more than that was taken")
    if any(action["result"] == "dry_run" for action in actions):
        lines.append("actions were only decided on: it is a dry run (MEMPRESSURE_DRY_RUN)")
    reasons = [text for action in actions for text in (*action["errors"], *action["skipped"])]
    reasons += [f"{skip['package']} {skip['reason']}" for cycle in tried for skip in cycle["skips"]]
    lines += [f"left alone: {reason}" for reason in list(dict.fromkeys(reasons))[:MOST_REASONS] if reason != "dry run"]
    return lines or ["nothing of what was tried gave anything back"]


def _concerns(cycle: CycleDict, scope: str, app: str) -> bool:
    return (cycle["scope"], cycle["app"]) in ((scope, app), ("host", "")) or scope == "host"
