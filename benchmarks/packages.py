"""Packages: what unloading gives back of what a package added, for each of 22 popular ones.

`stop` and `recycle` act on a real gunicorn worker by the same orders that the actuator gives. What a package added
is the private memory of all processes together (arbiter, worker, package process) once it was used, less that before;
what is not given back includes whatever the worker itself keeps. The first host that a worker ever starts costs it
something for good, which is not any package's doing: that is paid before, shown here, and held against its own limit
in `footprint`. The naive way deletes the package with all that it imported, its best case.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from benchmarks.exercises import EXERCISES, Exercise
from benchmarks.service import Service, serve
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
    names = ",".join(exercise.package for exercise in EXERCISES)
    with serve(environ={"BENCHMARK_ISOLATED": names}) as service:
        first_host = _first_host(service)
        stopped = [_told(exercise, _stop(service, exercise), "stop", say) for exercise in EXERCISES]
    with serve() as service:
        recycled = []
        for exercise in EXERCISES:
            recycled.append(_told(exercise, _recycle(service, exercise), "recycle", say))
            service.replace_worker()
    rows = []
    for exercise, stop, recycle in zip(EXERCISES, stopped, recycled, strict=True):
        naive = _naive(exercise)
        say(f"packages, naive: {exercise.package} {naive}")
        name = f"{exercise.distribution} {version(exercise.distribution)}"
        rows.append([name, *stop.cells(), *recycle.cells(), *naive])
    more = statistics.median(stop.added - recycle.added for stop, recycle in zip(stopped, recycled, strict=True))
    return {
        "what": f"memory given back and results after the reload, for {len(EXERCISES)} packages",
        "how": __doc__,
        "targets": as_dicts([*_targets("stop", stopped), *_targets("recycle", recycled)]),
        "notes": [
            f"The first package process of a worker costs {first_host / MIB:.2f} MB that stay, whatever the package.",
            f"A package adds {more / MIB:.1f} MB more in a host than in the worker (median): its interpreter.",
        ],
        "tables": [
            {
                "title": "MB added, share given back, result after the reload; naive: MB grown a cycle",
                "columns": [*_COLUMNS],
                "rows": rows,
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

    def cells(self) -> list[str]:
        """Return its part of the table."""
        return [f"{self.added / MIB:.1f}", f"{self.share:.1%}", "equal" if self.equal else "**not equal**"]


def _targets(mechanism: str, measured: list[Measured]) -> Iterator[Target]:
    what = f"{mechanism}: share of the private memory given back, worst of {len(measured)}"
    yield Target(what, 100 * min(each.share for each in measured), 95, "%", at_least=True)
    differing = sum(not each.equal for each in measured)
    yield Target(f"{mechanism}: packages whose result after the reload differs", differing, 0)


def _told(exercise: Exercise, measured: Measured, mechanism: str, say: Callable[[str], None]) -> Measured:
    say(f"packages, {mechanism}: {exercise.package} {measured.describe()}")
    return measured


def _first_host(service: Service) -> int:
    service.warm()
    before = service.private_bytes()
    for _ in range(2):
        service.answer(f"/run/{EXERCISES[-1].package}")
        service.stop(EXERCISES[-1].package)
    return service.private_bytes() - before


def _stop(service: Service, exercise: Exercise) -> Measured:
    before = service.private_bytes()
    first = service.answer(f"/run/{exercise.package}")
    loaded = service.private_bytes()
    service.stop(exercise.package)
    after = service.private_bytes()
    second = service.answer(f"/run/{exercise.package}")
    service.stop(exercise.package)
    return Measured(before=before, loaded=loaded, after=after, equal=first == second == exercise.known)


def _recycle(service: Service, exercise: Exercise) -> Measured:
    service.warm()
    before = service.private_bytes()
    first = service.answer(f"/run/{exercise.package}")
    loaded = service.private_bytes()
    service.replace_worker()
    service.warm()
    after = service.private_bytes()
    second = service.answer(f"/run/{exercise.package}")
    return Measured(before=before, loaded=loaded, after=after, equal=first == second == exercise.known)


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
