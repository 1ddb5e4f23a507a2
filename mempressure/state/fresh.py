"""What a fresh worker takes, and what replacing a worker by one gives back: pure functions of a reading."""

from mempressure.measure.reading import UNKNOWN
from mempressure.state.node import AppReading
from mempressure.state.package_processes import shared_names
from mempressure.state.records import WorkerState


def worker_bytes(app: AppReading, worker: WorkerState) -> float:
    """Return what a worker's end gives back: its private memory, and the package processes that no other one shares."""
    shared = shared_names(app.workers, worker)
    own = (package.proportional_bytes for package in worker.packages if package.name not in shared)
    return worker.private_bytes + sum(size for size in own if size > 0)


def fresh_bytes(app: AppReading, worker: WorkerState) -> float:
    """Return what a worker's successor takes when it begins to serve; `UNKNOWN` where that was not measured.

    That is the median of what the workers of the same supervisor took, the lower of two: one forked from a loaded
    parent, or one that loads more, may be an exception.
    """
    siblings = (each for each in app.workers if each.supervisor_pid == worker.supervisor_pid)
    baselines = sorted(each.baseline_bytes for each in siblings if each.baseline_bytes >= 0)
    return baselines[(len(baselines) - 1) // 2] if baselines else UNKNOWN


def expected_bytes(app: AppReading, worker: WorkerState) -> float:
    """Return by how much a worker's successor would be smaller, 0 at least; `UNKNOWN` where that is not known."""
    fresh = fresh_bytes(app, worker)
    return UNKNOWN if fresh < 0 else max(0.0, worker_bytes(app, worker) - fresh)
