"""Packages: what unloading gives back of what a package added, for each of 22 popular ones.

`stop` and `recycle` act on a real gunicorn worker by the same orders that the actuator gives. What a package added
is the private memory of all processes together (arbiter, worker, package host) once it was used, less that before;
what is not given back includes whatever the worker itself keeps. The first host that a worker ever starts costs it
something for good, which is not any package's doing: that is paid before, shown here, and held against its own limit
in `footprint`.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from benchmarks.exercises import EXERCISES, Exercise
from benchmarks.service import Service, serve, wait
from benchmarks.targets import Target, as_dicts
from stack.engines import ROOT

NAIVE_SECONDS = 120.0
MIB = 1 << 20
_COLUMNS = (
    *("package", "stop: added", "back", "result", "recycle: added", "back", "result"),
    *("naive: added", "back", "growth", "result"),
)


def run(say: Callable[[str], None]) -> dict[str, Any]:
    """Load, unload and load again each package in each way; return shares given back and results after the reload."""
    rows = {exercise.package: [f"{exercise.distribution} {version(exercise.distribution)}"] for exercise in EXERCISES}
    shares: dict[str, list[float]] = {"stop": [], "recycle": []}
    wrong: dict[str, int] = {"stop": 0, "recycle": 0}
    first_host = 0
    with serve(environ={"BENCHMARK_ISOLATED": ",".join(rows)}) as service:
        first_host = _first_host(service)
        for exercise, measured in _each(lambda exercise: _stop(service, exercise)):
            say(f"packages, stop: {exercise.package} {measured.describe()}")
            measured.note(rows[exercise.package], shares["stop"])
            wrong["stop"] += not measured.equal
    with serve() as service:
        for exercise, measured in _each(lambda exercise: _recycle(service, exercise)):
            say(f"packages, recycle: {exercise.package} {measured.describe()}")
            measured.note(rows[exercise.package], shares["recycle"])
            wrong["recycle"] += not measured.equal
    for exercise in EXERCISES:
        naive = _naive(exercise)
        say(f"packages, naive: {exercise.package} {naive}")
        rows[exercise.package] += naive
    return {
        "what": f"memory given back and results after the reload, for {len(EXERCISES)} packages",
        "how": __doc__,
        "targets": as_dicts(_targets(shares, wrong)),
        "notes": [
            f"The first package host of a worker costs {first_host / MIB:.2f} MB that stay, whatever the package."
        ],
        "tables": [
            {
                "title": "MB added, share given back and result after the reload; naive with its growth a cycle in MB",
                "columns": [*_COLUMNS],
                "rows": list(rows.values()),
            }
        ],
    }


class Measured:
    """What one package came to with one mechanism."""

    def __init__(self, *, before: int, loaded: int, after: int, equal: bool) -> None:
        self.added = loaded - before
        self.share = (loaded - after) / self.added
        self.equal = equal

    def describe(self) -> str:
        """Return it for people."""
        return f"{self.added / MIB:.1f} MB, {self.share:.1%} back, result {'equal' if self.equal else 'NOT EQUAL'}"

    def note(self, row: list[str], shares: list[float]) -> None:
        """Add it to a row of the table, and to the mechanism's shares."""
        row += [f"{self.added / MIB:.1f}", f"{self.share:.1%}", "equal" if self.equal else "**not equal**"]
        shares.append(self.share)


def _targets(shares: dict[str, list[float]], wrong: dict[str, int]) -> Iterator[Target]:
    for mechanism, values in shares.items():
        what = f"{mechanism}: share of the private memory given back, worst of {len(values)}"
        yield Target(what, 100 * min(values), 95, "%", at_least=True)
    for mechanism, count in wrong.items():
        yield Target(f"{mechanism}: packages whose result after the reload differs", count, 0)


def _each(measure: Callable[[Exercise], Measured]) -> Iterator[tuple[Exercise, Measured]]:
    for exercise in EXERCISES:
        yield exercise, measure(exercise)


def _first_host(service: Service) -> int:
    service.warm()
    before = service.private_bytes()
    for _ in range(2):
        service.answer(f"/run/{EXERCISES[-1].package}")
        _stop_host(service, EXERCISES[-1].package)
    return service.private_bytes() - before


def _stop(service: Service, exercise: Exercise) -> Measured:
    before = service.private_bytes()
    first = service.answer(f"/run/{exercise.package}")
    loaded = service.private_bytes()
    _stop_host(service, exercise.package)
    after = service.private_bytes()
    second = service.answer(f"/run/{exercise.package}")
    _stop_host(service, exercise.package)
    return Measured(before=before, loaded=loaded, after=after, equal=first == second == exercise.known)


def _stop_host(service: Service, package: str) -> None:
    (worker,) = service.workers()
    answer = service.order(worker.pid, "stop", package=package)
    if answer["skipped"] is not None:
        raise RuntimeError(f"{package} was not stopped: {answer['skipped']}")
    wait(lambda: not service.hosts(worker.pid), "the end of the package host")


def _recycle(service: Service, exercise: Exercise) -> Measured:
    service.warm()
    before = service.private_bytes()
    first = service.answer(f"/run/{exercise.package}")
    loaded = service.private_bytes()
    _replace_worker(service)
    service.warm()
    after = service.private_bytes()
    second = service.answer(f"/run/{exercise.package}")
    _replace_worker(service)
    return Measured(before=before, loaded=loaded, after=after, equal=first == second == exercise.known)


def _replace_worker(service: Service) -> None:
    (worker,) = service.wait_for_workers(1)
    outcome = service.recycle(worker)
    if outcome.workers != 1:
        raise RuntimeError(f"the worker was not recycled: {outcome.skipped or outcome.errors}")
    service.wait_for_workers(1)


def _naive(exercise: Exercise) -> list[str]:
    """Unload in the naive way in a process of its own, which may well crash."""
    command = [sys.executable, "-m", "benchmarks.naive", exercise.package]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=NAIVE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return ["", "", "", "hangs"]
    if ended.returncode != 0:
        return ["", "", "", f"ends with status {ended.returncode}"]
    figures = json.loads(ended.stdout.splitlines()[-1])
    share = figures["returned_bytes"] / figures["added_bytes"]
    sizes = [f"{figures['added_bytes'] / MIB:.1f}", f"{share:.1%}", f"{figures['growth_bytes'] / MIB:+.1f}"]
    return [*sizes, figures["result"]]
