"""Management leaves shared what workers share: private memory of idle, preloaded, frozen workers."""

import sys

import pytest

from mempressure.measure.process import process_memory
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)  # three starts of a service, and real time

DEADLINE = 60.0
ADDED_BYTES = 8 << 20
"""What management may add to a worker's private memory at its start."""
GROWN_BYTES = 1 << 20
"""What it may add from then on: everything that it unshares shows here."""
MANAGED_SECONDS = 20.0
"""A few dozen ticks of the agent, which does the same at each."""
SETTLED_SECONDS = 3.0

SERVICE = """
import pandas
import sympy


def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""
FROZEN = """
import gc

preload_app = True


def pre_fork(server, worker):
    if not gc.get_freeze_count():
        gc.collect()
    gc.freeze()
"""
DECLARING = """

def post_fork(server, worker):
    from mempressure import get_lazy_loader

    get_lazy_loader().manage("sympy")
"""
TASKS = """
import gc
import os

import pandas
import sympy
from celery import Celery
from celery.signals import worker_before_create_process

app = Celery("tasks", broker=os.environ["TASKS_REDIS"])
app.conf.broker_connection_retry_on_startup = True


@worker_before_create_process.connect
def freeze(**_):
    gc.collect()
    gc.freeze()
"""


def private(shop):
    return max(process_memory(pid).private for pid in shop.children())


def settled(shop):
    """Return the private memory of the larger of two children that do nothing, once it stays for some looks."""
    until(lambda: len(shop.children()) == 2, "two children", seconds=DEADLINE)
    seen = []

    def stays():
        seen.append(private(shop))
        last = seen[-200:]
        return len(last) == 200 and max(last) - min(last) < 64 << 10

    until(stays, lambda: f"memory that stays, of {shop.children()}; {seen[-3:]}", seconds=DEADLINE)
    return seen[-1]


def ticked(shop, seconds):
    """Wait until each worker has been managed for so long, by what its agent publishes."""

    def published():
        workers = shop.serving()
        return len(workers) == 2 and all(worker.sampled - worker.started >= seconds for worker in workers)

    until(published, f"{seconds:g} s of management", seconds=seconds + DEADLINE)


def added_and_grown(shop, plain):
    ticked(shop, SETTLED_SECONDS)
    first = private(shop)
    ticked(shop, SETTLED_SECONDS + MANAGED_SECONDS)
    return first - plain, private(shop) - first


@pytest.mark.parametrize("way", ["--manage", "--share", "declared"])
def test_gunicorns_workers_stay_shared(shop, way):
    shop.write(service=SERVICE, gunicorn_conf=FROZEN)
    frozen = ["--config", shop.folder / "gunicorn.conf.py"]
    shop.start(shop.gunicorn(*frozen), workers=0)
    plain = settled(shop)
    shop.process.stop()
    if way == "declared":
        shop.write(gunicorn_conf=FROZEN + DECLARING)
        shop.start(shop.gunicorn(*frozen))
    else:
        shop.start(shop.gunicorn(*(frozen if way == "--manage" else [])), way)
    added, grown = added_and_grown(shop, plain)
    assert grown <= GROWN_BYTES
    assert added <= ADDED_BYTES


@pytest.mark.parametrize("way", ["--manage", "--share"])
def test_celerys_children_stay_shared(shop, redis_url, way):
    shop.write(tasks=TASKS)
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "2"]
    environ = {"TASKS_REDIS": redis_url, "PYTHONPATH": f"{shop.environ()['PYTHONPATH']}:{shop.folder}"}
    shop.start(command, workers=0, **environ)
    plain = settled(shop)
    shop.process.stop()
    shop.start(command, way, **environ)
    added, grown = added_and_grown(shop, plain)
    assert grown <= GROWN_BYTES
    assert added <= ADDED_BYTES
