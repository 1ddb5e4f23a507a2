"""Replaced workers: no request lost while it goes on again and again, and how soon a successor serves.

**Losses**: clients with kept and with new connections, who pause for up to a tenth of a second between two requests,
while the budget is far too small: workers that have grown are replaced, after a moment without work or busy.

**Successors**: workers of an idle service are ordered to be replaced, one after the other, as the actuator orders it,
until a request is answered that only the successor can answer: the other worker is stopped meanwhile.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import service
from benchmarks.services import memory, ways
from benchmarks.services.applications import WORKERS, WebApplication
from benchmarks.services.load import Answers, ask
from benchmarks.services.rounds import Service, serve, temporary
from stack.processes import Processes

REQUESTS = 10_000
FEWEST_REPLACED = 5
CLIENTS, FRESH = 16, 8
MOST_PAUSE_SECONDS = 0.1
ORDERS = 10
_HURRIED = {
    "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT": "0.1",
    "MEMPRESSURE_RECYCLE": "normal",
    "MEMPRESSURE_RECYCLE_GROWTH": "4MiB",
    "MEMPRESSURE_RECYCLE_MIN_LIFETIME": "0.5",
    "MEMPRESSURE_RECYCLES_PER_MINUTE": "60",
    "MEMPRESSURE_FUTILE_CYCLES": "1000",
}
"""Settings with which workers are replaced as often as can be."""
_PLENTY = 64 << 30
_PATHS = 25
"""Requests of one kept connection."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What became of the requests while workers were replaced."""

    way: str
    answers: Answers
    replaced: int
    seconds: float


def losses(application: WebApplication, way: str, *, budget: int, requests: int = REQUESTS) -> Losses:
    """Ask for a light page, and for some by which workers grow, while workers are replaced under pressure.

    Raises:
        RuntimeError: they hardly were.
    """
    paths = [*application.growing, *[application.light] * (_PATHS - len(application.growing))]
    with _running(application, way, budget=budget, **_HURRIED) as running:
        sampler = memory.Sampler(running.process.pid, seconds=0.1)
        began = time.monotonic()
        answers = ask(
            running.site.port,
            paths,
            headers=application.headers,
            clients=CLIENTS,
            passes=requests // CLIENTS // _PATHS,
            fresh=FRESH,
            most_pause=MOST_PAUSE_SECONDS,
        )
        ended = time.monotonic()
        sampler.stop()
    replaced = memory.replaced(sampler.samples, begin=began, end=ended)
    if replaced < FEWEST_REPLACED:
        raise RuntimeError(f"{replaced} workers were replaced during {len(answers.seconds)} requests: too few to tell")
    return Losses(way, answers, replaced, ended - began)


def successions(application: WebApplication, way: str, *, orders: int = ORDERS) -> list[float]:
    """Order workers to be replaced; return after how many seconds each one's successor served.

    Raises:
        RuntimeError: one was not replaced.
    """
    with temporary() as directory, Processes(logs=service.LOGS / "services", environ={}) as processes:
        settings = ways.environment(way, service.APP, directory, budget=_PLENTY)
        settings["MEMPRESSURE_RECYCLE_MIN_LIFETIME"] = "0"
        with serve(application, way, processes, directory, **settings) as running:
            ordered = service.Service(pid=running.process.pid, port=running.site.port, runtime=directory / "run")
            return [_succession(ordered, application.light) for _ in range(orders)]


def _succession(ordered: service.Service, path: str) -> float:
    """Order a worker to be replaced, idle or not, while the other stands still; return when its successor answers."""
    workers = sorted(ordered.wait_for_workers(WORKERS), key=lambda worker: worker.started)
    retired, other = (worker.pid for worker in workers)
    os.kill(other, signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = ordered.order(retired, "recycle")
        if answer["skipped"] is not None:
            raise RuntimeError(f"worker {retired} was not replaced: {answer['skipped']}")
        service.wait(lambda: retired not in ordered.children(), "the end of the worker")
        ordered.get(path)
        return time.monotonic() - began
    finally:
        os.kill(other, signal.SIGCONT)


@contextlib.contextmanager
def _running(application: WebApplication, way: str, *, budget: int, **settings: str) -> Iterator[Service]:
    with temporary() as directory, Processes(logs=service.LOGS / "services", environ={}) as processes:
        settings = {**ways.environment(way, application.name, directory, budget=budget), **settings}
        with serve(application, way, processes, directory, **settings) as running:
            yield running
