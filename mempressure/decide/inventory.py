"""What the apps on a machine hold, as the API and the command line show it: a pure function of a reading."""

from collections.abc import Iterable
from typing import TypedDict

from mempressure.config.runtime_settings import Settings
from mempressure.decide.advice import AdviceDict, advice
from mempressure.decide.roles import RoleDict, idle_seconds, idle_together, roles
from mempressure.measure.reading import UNKNOWN
from mempressure.mechanisms import least_mild
from mempressure.state.fresh import expected_bytes
from mempressure.state.node import AppReading, NodeReading
from mempressure.state.package_processes import Held, memory_of, together
from mempressure.state.records import PROCESS_SOURCE, WorkerState


class PackageDict(TypedDict):
    """One package of an app, over all its workers; null is what is not known.

    `worker_idle_seconds` is how long no worker that holds it has had a request or task.
    """

    package: str
    mechanism: str
    verdict: str | None
    source: str
    memory_bytes: int
    result_bytes: int
    """What results of its functions have imported into the workers, which keep it."""
    cumulative_bytes: int | None
    freed_bytes: int | None
    growth_bytes_per_second: int | None
    imports: list[str]
    loaded_workers: int
    workers: int
    processes: int
    """Package processes that run, each counted once however many workers share it; 0 where it has none."""
    active_calls: int
    waiting_calls: int
    """Those of them that wait for a package process."""
    idle_seconds: float | None
    worker_idle_seconds: float | None
    timeout: float
    priority: float
    keep_loaded: bool


class WorkerDict(TypedDict):
    """One worker of an app; -1 is a size that is not known, and null what else is not."""

    pid: int
    started: float
    sampled: float
    age_seconds: float
    private_bytes: int
    proportional_bytes: int
    serving: bool
    supervisor: str | None
    trim_refused: str | None
    recycle_refused: str | None
    unsupported: dict[str, str]
    callbacks: int
    callback_failures: int
    active_work: int
    """Requests or tasks under way; 0 also where its server does not show them."""
    idle_seconds: float | None
    """Since the last of them ended; 0 while one is under way."""
    expected_bytes: int | None
    """What replacing it would give back: its private memory and the package processes that no other worker shares,
    less what a fresh worker takes."""


class AppDict(TypedDict):
    """One application: what it uses, of how much, and what it holds; null without a limit or budget."""

    app: str
    uid: int
    used: int
    limit: int | None
    usage_percent: float | None
    roles: list[RoleDict]
    workers: list[WorkerDict]
    packages: list[PackageDict]
    advice: list[AdviceDict]


def inventory(reading: NodeReading, settings: Settings) -> list[AppDict]:
    """Return every app with its workers and packages; sizes in bytes, times in seconds, None where not known."""
    return [_app(app, settings, reading.sampled) for _, app in sorted(reading.apps.items())]


def _app(app: AppReading, settings: Settings, now: float) -> AppDict:
    holders: dict[str, list[Held]] = {}
    for worker in app.workers:
        for package in worker.packages:
            holders.setdefault(package.name, []).append((worker, package))
    memory = app.memory
    return {
        "app": app.name,
        "uid": app.uid,
        "used": app.used_bytes,
        "limit": memory.total if memory else None,
        "usage_percent": memory.usage if memory else None,
        "roles": [role.as_dict() for role in roles(app.workers, now=now, processes=app.package_processes)],
        "workers": [_worker(app, worker, now) for worker in app.workers],
        "packages": [_package(app.name, name, holders[name], settings, now) for name in sorted(holders)],
        "advice": [each.as_dict() for each in advice(app.workers, now=now)],
    }


def _worker(app: AppReading, worker: WorkerState, now: float) -> WorkerDict:
    return {
        "pid": worker.pid,
        "started": worker.started,
        "sampled": worker.sampled,
        "age_seconds": max(0.0, now - worker.started),
        "private_bytes": int(worker.private_bytes),
        "proportional_bytes": int(worker.proportional_bytes),
        "serving": worker.serving,
        "supervisor": worker.supervisor or None,
        "trim_refused": worker.trim_refused or None,
        "recycle_refused": worker.recycle_refused or None,
        "unsupported": dict(worker.unsupported),
        "callbacks": int(worker.callbacks),
        "callback_failures": int(worker.callback_failures),
        "active_work": int(worker.active_work),
        "idle_seconds": idle_seconds(worker, now=now),
        "expected_bytes": int(expected) if (expected := expected_bytes(app, worker)) != UNKNOWN else None,
    }


def _package(app: str, name: str, held: Iterable[Held], settings: Settings, now: float) -> PackageDict:
    held = list(held)
    holders = [package for _, package in held]
    loaded = [package for package in holders if package.loaded]
    options = (loaded or holders)[0]
    counted = [(worker, package) for worker, package in together(held) if package.loaded]
    once = [package for _, package in counted]
    used = [package.last_used for package in once]
    return {
        "package": name,
        "mechanism": options.mechanism,
        "verdict": least_mild(package.verdict for package in holders) or None,
        "source": options.source,
        "memory_bytes": int(memory_of(counted)),
        "result_bytes": int(sum(package.result_bytes for package in holders)),
        "cumulative_bytes": _sum(package.cumulative_bytes for package in once),
        "freed_bytes": _sum(package.freed_bytes for package in once),
        "growth_bytes_per_second": _sum(package.growth for package in once),
        "imports": sorted({name for package in loaded for name in package.imports}),
        "loaded_workers": len(loaded),
        "workers": len(holders),
        "processes": int(sum(package.loaded for package in once if package.source == PROCESS_SOURCE)),
        "active_calls": int(sum(package.active_calls for package in holders)),
        "waiting_calls": int(sum(package.waiting_calls for package in holders)),
        # Idle for as long as the worker that used it last; one that cannot tell leaves it unknown.
        "idle_seconds": max(0.0, now - max(used)) if used and min(used) >= 0 else None,
        "worker_idle_seconds": idle_together(
            idle_seconds(worker, now=now) for worker, package in held if package.loaded
        ),
        "timeout": options.timeout,
        "priority": options.priority,
        "keep_loaded": settings.keep_loaded(app, name, declared=any(package.keep_loaded for package in holders)),
    }


def _sum(values: Iterable[float]) -> int | None:
    """Return the sum of what is known; None where nothing is."""
    known = [value for value in values if value != UNKNOWN]
    return int(sum(known)) if known else None
