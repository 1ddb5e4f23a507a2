"""Cycles: what a hundred unloads and reloads leave behind.

One worker loads a package, answers with it and has it unloaded, a hundred times over, by the orders that the
actuator gives. After each unload the private memory of all processes, their number, and their open files and sockets
are read from outside. Memory is flat if the median of the last tenth is within 2 % of the median of the first; the
others must be equal. Beside it the naive way, in the same worker, fewer times: it does not last longer.
"""

import statistics as stdlib_statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.exercises import EXERCISES
from benchmarks.service import Service, serve
from benchmarks.statistics import drift, tenths
from benchmarks.targets import Target, as_dicts

CYCLES = 100
NAIVE_CYCLES = 15
PACKAGES = {"stop": "pandas", "recycle": "sympy", "naive": "sympy"}
SETTLING_CYCLES = 2
MIB = 1 << 20
_COLUMNS = ("way", "package", "cycles", "MB first", "MB last", "MB a cycle", "processes", "files", "sockets")


class Remains(NamedTuple):
    """What is there after an unload, over all processes."""

    bytes: int
    processes: int
    files: int
    sockets: int


def run(say: Callable[[str], None], *, cycles: int = CYCLES) -> dict[str, Any]:
    """Do the cycles in each way; return how memory, processes, files and sockets ended against how they began."""
    targets: list[Target] = []
    rows = []
    for way, unload in (("stop", _stop), ("recycle", _recycle), ("naive", _naive)):
        count = cycles if way != "naive" else NAIVE_CYCLES
        with serve(environ={"BENCHMARK_ISOLATED": PACKAGES[way] if way == "stop" else ""}) as service:
            remains = [*_cycles(service, way, unload, count, say)]
        if way != "naive":
            targets += _targets(way, remains)
        rows.append(_row(way, remains))
    return {
        "what": f"{cycles} cycles of load, use and unload",
        "how": __doc__,
        "targets": as_dicts(targets),
        "tables": [
            {
                "title": "Medians of the first and of the last tenth of the cycles, after the unload",
                "columns": [*_COLUMNS],
                "rows": rows,
            }
        ],
    }


def _cycles(
    service: Service, way: str, unload: Callable[[Service, str], None], count: int, say: Callable[[str], None]
) -> list[Remains]:
    package = PACKAGES[way]
    (known,) = (exercise.known for exercise in EXERCISES if exercise.package == package)
    remains: list[Remains] = []
    for number in range(SETTLING_CYCLES + count):
        service.warm(requests=5)
        if service.answer(f"/run/{package}") != known:
            raise RuntimeError(f"{package} gave a wrong answer in cycle {number} of {way}")
        unload(service, package)
        if number >= SETTLING_CYCLES:
            remains.append(_remains(service))
        if (number + 1) % 10 == 0:
            say(f"cycles, {way}: {number + 1}, {remains[-1].bytes / MIB:.1f} MB")
    return remains


def _stop(service: Service, package: str) -> None:
    service.stop(package)


def _recycle(service: Service, _package: str) -> None:
    service.replace_worker()
    service.warm(requests=5)


def _naive(service: Service, package: str) -> None:
    service.answer(f"/naive/{package}")


def _remains(service: Service) -> Remains:
    return Remains(service.private_bytes(), *service.open_things())


def _targets(way: str, remains: Sequence[Remains]) -> list[Target]:
    memory = Target(f"{way}: growth of memory", 100 * abs(drift([each.bytes for each in remains])), 2, "%")
    return [
        memory,
        *(Target(f"{way}: {name} left behind", _left(remains, name), 0) for name in ("processes", "files", "sockets")),
    ]


def _left(remains: Sequence[Remains], name: str) -> float:
    first, last = tenths([getattr(each, name) for each in remains])
    return stdlib_statistics.median(last) - stdlib_statistics.median(first)


def _row(way: str, remains: Sequence[Remains]) -> list[str]:
    first, last = (stdlib_statistics.median(tenth) / MIB for tenth in tenths([each.bytes for each in remains]))
    growth = (last - first) / (len(remains) - len(remains) // 10)
    counts = [f"{remains[0][index]} → {remains[-1][index]}" for index in (1, 2, 3)]
    return [way, PACKAGES[way], str(len(remains)), f"{first:.1f}", f"{last:.1f}", f"{growth:+.3f}", *counts]
