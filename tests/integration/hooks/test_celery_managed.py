"""`mempressure run --manage` around Celery with tasks that know nothing of it."""

import sys

import psutil
import pytest
from celery import Celery

from mempressure.measure.process import process_memory
from tests.support.waiting import until

DEADLINE = 60.0
TASKS = """
import gc
import os
import time

import sympy
from celery import Celery

app = Celery("tasks", broker=os.environ["TASKS_REDIS"], backend=os.environ["TASKS_REDIS"])
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_hijack_root_logger = False


@app.task(name="look")
def look(late=False):
    if late:
        import networkx
    gc.collect()  # as it comes by itself after some time
    time.sleep(0.3)  # so that each child has one of those that are sent together
    return os.getpid(), gc.get_freeze_count()
"""
OWN = """
import mempressure.celery

mempressure.celery.share()
"""
PROGRAM = """
if __name__ == "__main__":
    import sys
    app.worker_main(sys.argv[1:])
"""


@pytest.fixture
def tasks(shop, redis_url):
    """Tasks to be started, and a client that asks for them."""
    shop.write(tasks=TASKS)

    def start(*run, command=("-m", "celery", "-A", "tasks"), options=(), workers=2):
        worker = ["worker", "--concurrency", "2", "--loglevel", "INFO", *options]
        words = [sys.executable, *command, *worker]
        path = f"{shop.environ()['PYTHONPATH']}:{shop.folder}"
        shop.start(words, *run, workers=workers, TASKS_REDIS=redis_url, PYTHONPATH=path)
        return shop

    with Celery(broker=redis_url, backend=redis_url) as client:

        def look(**options):
            sent = [client.send_task("look", kwargs=options) for _ in range(4)]
            return dict(each.get(timeout=DEADLINE) for each in sent)

        start.look = look
        yield start


def both(shop, look, **options):
    """Return what a task in each child says, by its process id."""
    found = {}

    def seen():
        found.update(look(**options))
        return {worker.pid for worker in shop.serving()} <= found.keys()

    until(seen, "a task in each child", seconds=DEADLINE)
    return found


def test_children_are_managed_and_one_is_replaced(tasks):
    shop = tasks("--manage")
    both(shop, tasks.look, late=True)

    def described():
        return all(
            "networkx" in {package.name for package in worker.packages} and not worker.recycle_refused
            for worker in shop.serving()
        )

    until(described, "what they imported late", seconds=DEADLINE)
    for worker in shop.serving():
        assert (worker.supervisor, worker.supervisor_pid, worker.role) == ("celery", shop.process.pid, "child")
        late = {package.name: package.late_bytes for package in worker.packages}
        assert late["networkx"] > 1 << 20
    victim = shop.serving()[0]
    successor = shop.replaced(victim)
    assert successor.pid in both(shop, tasks.look)
    assert not psutil.pid_exists(victim.pid)
    assert shop.said == []


@pytest.mark.parametrize("way", ["command line", "module", "both"])
def test_children_share_what_is_loaded_before_they_are_forked(tasks, way):
    options = [] if way == "module" else ["--share"] if way == "command line" else ["--manage"]
    plain = tasks("--manage")
    assert set(both(plain, tasks.look).values()) == {0}
    alone = min(process_memory(worker.pid).private for worker in plain.serving())
    plain.process.stop()
    plain.write(tasks=TASKS if way == "command line" else OWN + TASKS)
    shop = tasks(*options)
    assert min(both(shop, tasks.look).values()) > 10_000
    assert max(process_memory(worker.pid).private for worker in shop.serving()) < 0.75 * alone
    successor = shop.replaced(shop.serving()[0])
    assert both(shop, tasks.look)[successor.pid] > 10_000
    assert shop.said == []


def test_a_program_that_starts_its_worker_itself_is_managed_too(tasks, shop):
    shop.write(tasks=TASKS + PROGRAM)
    tasks("--share", command=(shop.folder / "tasks.py",))
    assert min(both(shop, tasks.look).values()) > 10_000
    assert {worker.supervisor_pid for worker in shop.serving()} == {shop.process.pid}


@pytest.mark.parametrize(("pool", "name"), [("solo", "solo"), ("threads", "thread")])
def test_a_pool_that_forks_nothing_is_told_by_name(tasks, pool, name):
    shop = tasks("--share", options=["--pool", pool], workers=1)
    assert set(tasks.look().values()) == {0}
    assert shop.said == [f"mempressure: workers do not share their memory: Celery's {name} pool forks no children"]
    [worker] = shop.all()
    assert "runs tasks in its main process" in worker.recycle_refused


def test_a_command_of_celery_that_is_no_worker_says_that_nothing_is_managed(shop, redis_url):
    shop.write(tasks=TASKS)
    command = [sys.executable, "-m", "celery", "-A", "tasks", "report"]
    path = f"{shop.environ()['PYTHONPATH']}:{shop.folder}"
    shop.start(command, "--manage", workers=0, TASKS_REDIS=redis_url, PYTHONPATH=path)
    until(lambda: not shop.process.running, "its end", seconds=DEADLINE)
    assert "has run no gunicorn, uvicorn or Celery itself: nothing in it was managed" in shop.said[-1]
