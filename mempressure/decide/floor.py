"""The floor of an app's memory: what it takes once every worker is fresh, and what to do where that is too much."""

import math

from mempressure.config.thresholds import Thresholds, relieved
from mempressure.measure.reading import UNKNOWN
from mempressure.state.fresh import expected_bytes, fresh_bytes
from mempressure.state.node import AppReading
from mempressure.state.records import WorkerState

FORKING = ("gunicorn", "celery")
"""Servers whose workers can share what was loaded before they are forked."""
SHARING_RATIO = 0.5
"""A worker whose private memory is less than this share of its proportional memory when fresh shares already."""
_STEP = 10 << 20
"""Sizes to be set are given in steps of so many bytes."""


def floor_bytes(app: AppReading) -> float:
    """Return what an app would use if every worker was fresh, measured as its usage is; `UNKNOWN` where not known.

    What a worker has beyond a fresh one is private, and counts whole in the proportional memory (PSS) and in a cgroup;
    its supervisor, and what they share, stay.
    """
    expected = [expected_bytes(app, worker) for worker in app.workers]
    if app.memory is None or not expected or UNKNOWN in expected:
        return UNKNOWN
    return max(0.0, app.memory.used - sum(expected))


def reason_out_of_reach(app: AppReading, thresholds: Thresholds) -> str:
    """Return that fresh workers alone keep an app above the exit of unload_packages, and what would help; else empty.

    For example: fresh workers alone take 76 % of the budget; raise it above 660 MiB, run one worker less, or share by
    --share
    """
    floor = floor_bytes(app)
    if app.memory is None or floor < 0 or relieved(floor / app.memory.total, thresholds):
        return ""
    budget = max(worker.budget_bytes for worker in app.workers)
    what = "budget" if app.memory.total == budget else "limit"
    least = math.ceil(floor / thresholds.exit("unload_packages") / _STEP) * _STEP
    ways = [f"raise it above {least >> 20} MiB"]
    if len(app.workers) > 1:
        ways.append("run one worker less")
        if any(_could_share(app, worker) for worker in app.workers):
            ways.append("share by --share")
    listed = f"{', '.join(ways[:-1])}, or {ways[-1]}" if len(ways) > 2 else " or ".join(ways)
    return f"fresh workers alone take {100 * floor / app.memory.total:.0f} % of the {what}; {listed}"


def _could_share(app: AppReading, worker: WorkerState) -> bool:
    """Return whether a fresh worker holds most of its memory for itself, though its server could have it shared."""
    fresh = fresh_bytes(app, worker)
    proportional = worker.proportional_bytes - max(0.0, worker.private_bytes - fresh)
    return worker.supervisor in FORKING and fresh >= SHARING_RATIO * proportional
