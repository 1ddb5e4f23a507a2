"""Reaction: from the crossing of a threshold to the webhook to the memory given back, again and again.

The sample's two workers hold pandas, isolated and idle at once (its timeout is 0.1 s), against a budget that both
hosts together cross in one step (the warning lies right below, so that no earlier alert has woken anyone). One
sample is one episode: start the sample under a name of its own, so that no lease of an earlier one lives; load
pandas in both workers, cross 0.80, and wait until usage is below the exit.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import requests

from benchmarks.statistics import summary
from mempressure.config.thresholds import Thresholds
from stack.configuration import free_ports
from stack.engines import ROOT, find_engines
from stack.observation import Observer, unloads
from stack.system import System, run_system, start_sample

EPISODES = 20
LOGS = ROOT / "build" / "logs" / "bench"
ENVIRONMENT = {"MEMPRESSURE_BUDGET": "185MiB", "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT": "0.1"}
THRESHOLDS = {"warning": 0.79, "unload_packages": 0.8, "aggressive_unload": 0.95, "emergency": 0.99}


def run(say: Callable[[str], None]) -> dict[str, Any]:
    """Measure `EPISODES` crossings; return their distributions in seconds."""
    episodes = []
    with run_system(free_ports(), engines=find_engines(), logs=LOGS, environ=ENVIRONMENT, sample=False) as system:
        _set_thresholds(system)
        _await_first_scrape(system)
        for number in range(EPISODES):
            app = f"sample-{number}"
            sample = system.bring_up("sample", partial(start_sample, app=app))
            episodes.append(_episode(system, app))
            sample.stop()
            say(f"reaction {number + 1}/{EPISODES}: " + ", ".join(f"{k} {v:.2f} s" for k, v in episodes[-1].items()))
    return {
        "what": "seconds, at 1 s scrapes and evaluations, two workers, pandas isolated in both",
        **{name: summary([episode[name] for episode in episodes]) for name in episodes[0]},
    }


def _episode(system: System, app: str) -> dict[str, float]:
    thresholds = Thresholds()
    enter, leave = thresholds.enter("unload_packages"), thresholds.exit("unload_packages")
    observer = Observer(system, app_name=app)
    observer.wait(lambda _: _workers(observer) == 2, what="both workers", seconds=30)
    observer.look()
    known = len(observer.cycles)
    done = threading.Event()
    clients = [threading.Thread(target=_use_pandas, args=(system, done)) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        crossed = observer.wait(lambda usage: usage >= enter, what="the crossing", seconds=30)
    finally:
        done.set()
        for client in clients:
            client.join()
    freed = observer.wait(lambda usage: usage < leave, what="relief", seconds=30)
    observer.wait(lambda _: bool(unloads(observer.cycles[known:])), what="the record of the unload", seconds=10)
    cycle = next(cycle for cycle in observer.cycles[known:] if unloads([cycle]))
    if cycle["trigger"] != "webhook":
        raise RuntimeError(f"the cycle was opened by {cycle['trigger']}, not by a webhook")
    webhook = cycle["pressure_since"]
    return {
        "crossing_to_webhook": webhook - crossed,
        "webhook_to_freed": freed - webhook,
        "crossing_to_freed": freed - crossed,
    }


def _workers(observer: Observer) -> int:
    app = observer.app()
    return sum(worker.serving for worker in app.workers) if app is not None else 0


def _await_first_scrape(system: System) -> None:
    """Wait until Prometheus has begun: its first scrape comes some 5 s after its start."""
    deadline = time.monotonic() + 30
    while not system.get("prometheus", "/api/v1/query", query='up{job="mempressure-exporter"} == 1')["data"]["result"]:
        if time.monotonic() > deadline:
            raise RuntimeError("Prometheus did not scrape the exporter within 30 s")
        time.sleep(0.1)


def _set_thresholds(system: System) -> None:
    requests.post(
        system.url("actuator") + "/api/packages/memory/pressure-thresholds",
        json=THRESHOLDS,
        headers={"Authorization": f"Bearer {system.token}"},
        timeout=10,
    ).raise_for_status()


def _use_pandas(system: System, done: threading.Event) -> None:
    while not done.is_set():
        requests.get(system.url("sample") + "/report", params={"rows": "10"}, timeout=30).raise_for_status()
