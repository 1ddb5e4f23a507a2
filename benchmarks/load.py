"""Load: requests that fail or are answered wrongly while packages are unloaded under full traffic.

Sixteen clients ask two gunicorn workers (gthread) as fast as they are answered, on keep-alive connections, and
compare every answer with the known one. Of the requests most use no package, some a module that imports sympy at its
top as applications do, some numpy in its package process. Meanwhile each mechanism unloads a hundred times, by the
orders that the actuator gives, as fast as the agents carry them out: `stop` numpy between calls, `trim` and `recycle`
each worker in turn. The naive way unloads sympy under the traffic of the others. Clients, server and orders share the
machine's cores.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.exercises import EXERCISES
from benchmarks.service import Service, serve
from benchmarks.targets import Target, as_dicts
from benchmarks.traffic import Page, Phase, Traffic

CLIENTS = 16
UNLOADS = 100
NAIVE_UNLOADS = 10
QUIET_SECONDS = 10.0
NAIVE_PAUSE_SECONDS = 0.5
PAUSE_SECONDS = 0.02
DEADLINE_SECONDS = 300.0
ISOLATED = "numpy"
OPTIONS = ("--worker-class", "gthread", "--threads", "8", "--keep-alive", "5")


def run(say: Callable[[str], None], *, unloads: int = UNLOADS) -> dict[str, Any]:
    """Unload under traffic in each way; return what the clients met, beside a quiet time."""
    rows, targets, notes = [], [], []
    environ = {"BENCHMARK_ISOLATED": ISOLATED}
    with serve(environ=environ, workers=2, options=OPTIONS) as service:
        for way, unload in _WAYS.items():
            phase, counts = _under_traffic(service, way, unload, unloads)
            say(f"load, {way}: {counts['unloads']} unloads, {phase.failed} failed, {phase.wrong} wrong")
            rows.append([way, *(f"{counts[name]}" for name in ("unloads", "refused")), *phase.row()])
            notes += [f"{way}: {example}" for example in phase.examples]
            if way != "quiet":
                targets += _targets(way, phase, counts, unloads)
    with serve(environ=environ, workers=2, options=OPTIONS) as service:
        phase, counts = _under_traffic(service, "naive", _naive, NAIVE_UNLOADS)
        say(f"load, naive: {counts['unloads']} unloads, {phase.failed} failed, {phase.wrong} wrong")
        rows.append(["naive", f"{counts['unloads']}", f"{counts['refused']}", *phase.row()])
        notes += [f"naive, for example: {example}" for example in phase.examples[:1]]
    return {
        "what": f"{CLIENTS} clients at full rate, {unloads} unloads of each mechanism",
        "how": __doc__,
        "targets": as_dicts(targets),
        "notes": notes,
        "tables": [
            {
                "title": "Requests during the unloads; `refused` orders found the package in use and were given again",
                "columns": ["way", "unloads", "refused", *Traffic.COLUMNS],
                "rows": rows,
            }
        ],
    }


def pages() -> list[Page]:
    """Return what the clients ask for while packages are unloaded."""
    algebra = [Page(f"/algebra/{n}", 0.01, json.dumps(known_derivative(n)).encode()) for n in range(2, 8)]
    (known,) = (exercise.known for exercise in EXERCISES if exercise.package == ISOLATED)
    isolated = Page(f"/run/{ISOLATED}", 0.01, json.dumps(known).encode())
    return [Page("/ping", 0.93, b'"pong"'), *algebra, isolated]


def known_derivative(exponent: int) -> str:
    """Return what `benchmarks.algebra.derivative` gives, worked out without sympy."""
    return f"{exponent}*(x + 1)" + (f"**{exponent - 1}" if exponent > 2 else "")


Unload = Callable[[Service, int], bool]


def _under_traffic(service: Service, way: str, unload: Unload | None, unloads: int) -> tuple[Phase, Mapping[str, int]]:
    """Have the clients ask, and unload so many times; return what they met and how many orders were refused."""
    traffic = Traffic(service.port, pages(), clients=CLIENTS)
    counts = {"unloads": 0, "refused": 0}
    service.wait_for_workers(2)
    traffic.start()
    try:
        time.sleep(2)  # until every worker has loaded everything
        phase = traffic.begin(way)
        deadline = time.monotonic() + DEADLINE_SECONDS
        if unload is None:
            time.sleep(QUIET_SECONDS)
        while unload is not None and counts["unloads"] < unloads and time.monotonic() < deadline:
            counts["unloads" if unload(service, counts["unloads"]) else "refused"] += 1
            time.sleep(PAUSE_SECONDS)
        time.sleep(1)  # what the last one did is met now
    finally:
        traffic.stop()
    return phase, counts


def _stop(service: Service, number: int) -> bool:
    workers = service.workers()
    answer = service.order(workers[number % len(workers)].pid, "stop", package=ISOLATED)
    return answer["skipped"] is None


def _trim(service: Service, number: int) -> bool:
    workers = service.workers()
    answer = service.order(workers[number % len(workers)].pid, "trim", level="high")
    return answer["skipped"] is None


def _recycle(service: Service, _number: int) -> bool:
    workers = service.wait_for_workers(2)
    return service.recycle(min(workers, key=lambda worker: worker.started)).workers == 1


def _naive(service: Service, _number: int) -> bool:
    service.get("/naive/sympy")
    time.sleep(NAIVE_PAUSE_SECONDS)
    return True


_WAYS: dict[str, Unload | None] = {"quiet": None, "stop": _stop, "trim": _trim, "recycle": _recycle}


def _targets(way: str, phase: Phase, counts: Mapping[str, int], unloads: int) -> list[Target]:
    return [
        Target(f"{way}: unloads done", counts["unloads"], unloads, at_least=True),
        Target(f"{way}: failed requests", phase.failed, 0),
        Target(f"{way}: wrong answers", phase.wrong, 0),
    ]
