"""What `mempressure run` observed: the records of a run's processes, and what they amount to by role and package."""

import json
import os
import shlex
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mempressure.config.paths import atomic_write, make_private
from mempressure.decide.advice import AdviceDict, advice
from mempressure.decide.roles import RoleDict, idle_seconds, idle_together, roles
from mempressure.errors import MempressureError
from mempressure.measure import reading
from mempressure.state.package_processes import Held, memory_of, together
from mempressure.state.reader import StateError, decode
from mempressure.state.records import WorkerState
from mempressure.worker.observer import MANAGED

KEPT_RUNS = 10
ENDED_SECONDS = 10.0
"""A process whose last record is so much older than the newest of all had ended before: a live one writes each second,
and the workers of a server that ends take some seconds."""
_SUMMARY_FILE = "run.json"
"""Command, beginning, end and exit status of a run, in its directory."""


class NoRunError(MempressureError):
    """There is no run to show: nothing was observed yet, or its summary cannot be read."""


@dataclass(frozen=True, slots=True)
class ObservedPackage:
    """One package over all processes of a run: bytes summed, seconds, None where not known."""

    package: str
    processes: int
    memory_bytes: int
    freed_bytes: int | None
    load_seconds: float
    """What loading it again costs: the mean of its loads, those of what it imports included."""
    idle_seconds: float | None
    """Since its last use in any process, at the end of that process or now; None where that is not seen."""
    worker_idle_seconds: float | None
    """Since the last request or task in any process that holds it; None where its server does not show that."""
    used_share: float | None
    """Share of the seconds of its processes in which it was seen to be used, 0 to 1; None as before."""
    timeout: float


@dataclass(frozen=True, slots=True)
class Run:
    """One `mempressure run`; times in Unix seconds, `ended` and `status` None while it runs."""

    command: list[str]
    started: float
    ended: float | None
    status: int | None
    processes: int
    ended_processes: int
    """How many had ended well before the others; nothing else here counts them."""
    manages_itself: bool
    """Whether a process of it manages its packages with a loader; then that one is not observed."""
    roles: list[RoleDict]
    packages: list[ObservedPackage]
    advice: list[AdviceDict]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def begin(cache: Path, command: list[str], *, now: float) -> Path:
    """Make the directory of a new run, and remove all but the newest of those before.

    Raises:
        UnsafeDirectoryError: the cache directory is open to others.
        OSError: it cannot be made.
    """
    folder = make_private(make_private(cache) / "observed", mode=0o700)
    for old in sorted(folder.iterdir())[: 1 - KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)
    directory = make_private(folder / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{os.getpid()}", mode=0o700)
    _write_summary(directory, {"command": command, "started": now, "ended": None, "status": None})
    return directory


def discard(directory: Path) -> None:
    """Forget a run whose command could not be started."""
    shutil.rmtree(directory, ignore_errors=True)


def end(directory: Path, *, now: float, status: int) -> None:
    """Write to a run's summary that it is over.

    Raises:
        NoRunError: the summary cannot be read.
        OSError: it cannot be written.
    """
    _write_summary(directory, _read_summary(directory) | {"ended": now, "status": status})


def newest(cache: Path) -> Run:
    """Return the run that began last.

    Raises:
        NoRunError: there is none, or its summary cannot be read.
    """
    try:
        directory = max((cache / "observed").iterdir())
    except (OSError, ValueError):
        raise NoRunError("nothing was observed yet; start the application with mempressure run -- COMMAND") from None
    return read(directory)


def read(directory: Path) -> Run:
    """Return what is known of a run; a process' record that cannot be read is left out.

    Raises:
        NoRunError: the run's summary cannot be read.
    """
    found = []
    for path in sorted(directory.glob("*.state")):
        try:
            found.append(decode(path.read_bytes()))
        except (OSError, StateError):  # its process has just replaced it, or was killed as it began
            continue
    workers = last_alive(found)
    last = max((worker.sampled for worker in workers), default=0.0)
    summary = _read_summary(directory)
    return Run(
        command=summary["command"],
        started=summary["started"],
        ended=summary["ended"],
        status=summary["status"],
        processes=len(workers),
        ended_processes=len(found) - len(workers),
        manages_itself=(directory / MANAGED).exists(),
        roles=[role.as_dict() for role in roles(workers, now=last)],
        packages=packages(workers),
        advice=[each.as_dict() for each in advice(workers, now=last, command=shlex.join(summary["command"]))],
    )


def last_alive(workers: Sequence[WorkerState]) -> list[WorkerState]:
    """Return the records of the processes that were alive at the end: what ended before holds nothing any more."""
    end = max((worker.sampled for worker in workers), default=0.0) - ENDED_SECONDS
    return [worker for worker in workers if worker.sampled >= end]


def packages(workers: Iterable[WorkerState]) -> list[ObservedPackage]:
    """Return what each loaded package amounts to over these processes, what frees most first."""
    holders: dict[str, list[Held]] = {}
    for worker in workers:
        for package in worker.packages:
            if package.loaded:
                holders.setdefault(package.name, []).append((worker, package))
    found = [_summed(name, held) for name, held in holders.items()]
    return sorted(found, key=lambda package: (-(package.freed_bytes or 0), -package.memory_bytes, package.package))


def _summed(name: str, held: list[Held]) -> ObservedPackage:
    freed = [package.freed_bytes for _, package in together(held) if package.freed_bytes != reading.UNKNOWN]
    loads = sum(package.loads for _, package in held)
    unseen = any(package.last_used == reading.UNKNOWN for _, package in held)
    seconds = sum(max(1.0, worker.sampled - worker.started) for worker, _ in held)
    return ObservedPackage(
        package=name,
        processes=len(held),
        memory_bytes=int(memory_of(held)),
        freed_bytes=int(sum(freed)) if freed else None,
        load_seconds=sum(package.load_seconds for _, package in held) / max(1.0, loads),
        idle_seconds=None if unseen else min(max(0.0, worker.sampled - each.last_used) for worker, each in held),
        worker_idle_seconds=idle_together(idle_seconds(worker, now=worker.sampled) for worker, _ in held),
        used_share=None if unseen else min(1.0, sum(package.uses for _, package in held) / seconds),
        timeout=held[0][1].timeout,
    )


def _write_summary(directory: Path, summary: dict[str, Any]) -> None:
    atomic_write(directory / _SUMMARY_FILE, json.dumps(summary).encode(), mode=0o600, sync=False)


def _read_summary(directory: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((directory / _SUMMARY_FILE).read_text())
    except (OSError, ValueError) as error:
        raise NoRunError(f"the run in {directory} cannot be read: {error}") from None
    return content
