"""Workers that declare no package: the loop replaces what is idle or has grown, and no request or task is lost."""

import re
import sys
import threading
import time
import urllib.request

import pytest
import redis
from celery import Celery

from mempressure.act.executor import Executor
from mempressure.config.thresholds import Thresholds
from mempressure.control.loop import ControlLoop
from mempressure.control.records import Pressure
from mempressure.decide.eligibility import Rules
from stack.processes import free_port
from tests.support.servers.squares import Squares
from tests.support.servers.workers import Workers
from tests.support.waiting import until

DEADLINE = 60.0
MIB = 1 << 20
SAMPLE = "tests.support.programs.caching_sample"
LOW = Thresholds(warning=0.1, unload_packages=0.2, aggressive_unload=0.3, emergency=0.9)
"""The workers of a test take far less than a budget: whether they are under pressure does not hang on a few MiB."""
SERVERS = {
    "sync": ("gunicorn", f"{SAMPLE}:wsgi", "--no-control-socket", "--bind={address}", "--worker-class=sync"),
    "gthread": (
        *("gunicorn", f"{SAMPLE}:wsgi", "--no-control-socket", "--bind={address}"),
        *("--worker-class=gthread", "--threads=4"),
    ),
    "uvicorn": ("uvicorn", f"{SAMPLE}:asgi", "--port={port}", "--no-access-log"),
}


IDLE = {"LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT": "0.6"}
"""Idle is what had no work for half of it, under strategy high."""


def _recycled(action):
    return action.mechanism == "recycle" and action.workers


class Sample(Workers):
    """The sample under a server, and a control loop for its budget."""

    def __init__(self, processes, runtime):
        super().__init__(runtime, "sample")
        self.port = free_port()
        self.cycles = []
        self._processes = processes

    def start(self, server, **environ):
        options = [option.format(address=f"127.0.0.1:{self.port}", port=self.port) for option in (*SERVERS[server],)]
        command = [sys.executable, "-m", *options, "--workers=2"]
        self.process = self._processes.start("sample", command, environ=self.environ(**environ))
        self.is_complete()

    def is_complete(self):
        self.process.wait_until(
            lambda: len(self.serving()) == 2 and all(worker.baseline_bytes > 0 for worker in self.serving()),
            seconds=DEADLINE,
        )

    def loop(self, **rules):
        """Return a function that opens a cycle for the app's budget if one is due, and returns those that acted."""
        settled = Rules(
            thresholds=LOW, keep_loaded=lambda _app, _package, _declared: False, recycle_min_lifetime=0.0, **rules
        )
        loop = ControlLoop(Executor(self.read), rules=lambda: settled, record=self.cycles.append)
        return lambda: loop.run([Pressure("app", "sample", "autonomous", since=time.time())])

    def fill(self):
        """Have every worker fill its cache."""
        pids = {worker.pid for worker in self.serving()}

        def ask():
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/fill", timeout=DEADLINE) as answer:
                filled.add(int(answer.read()))
            return filled >= pids

        filled = set()
        until(ask, "every worker to have filled its cache", seconds=DEADLINE)

    def recycled(self):
        """Return the actions that recycled a worker."""
        return [action for cycle in self.cycles for action in cycle.actions if _recycled(action)]

    def used(self):
        return Executor(self.read).measure().apps["sample"].memory.used


@pytest.fixture
def sample(processes, runtime_dir):
    sample = Sample(processes, runtime_dir)
    yield sample
    sample.process.stop()
    assert not sample.files(), "the workers left files behind"


every_server = pytest.mark.parametrize("server", list(SERVERS))


@every_server
def test_an_idle_worker_gives_back_its_cache_and_no_request_is_lost(sample, server):
    sample.start(server, MEMPRESSURE_BUDGET="400MiB", **IDLE)
    sample.fill()
    before, pids, run = sample.used(), {worker.pid for worker in sample.serving()}, sample.loop(recycle_growth=0)
    # Seldom enough for a worker to be idle in between.
    with Squares(sample.port, clients=2, pause_seconds=1.0) as load:
        until(lambda: run() and sample.recycled(), lambda: str(sample.cycles), seconds=DEADLINE)
        answers = load.answers
        until(lambda: load.answers > answers + 5, "more answers", seconds=DEADLINE)
    assert load.failures == []
    sample.is_complete()
    [action, *_] = sample.recycled()
    assert action.packages == ()
    assert "without work for" in action.reason
    assert action.expected_bytes == pytest.approx(action.reclaimed_bytes, rel=0.2)
    assert action.reclaimed_bytes > 50 * MIB
    assert sample.used() < before - 50 * MIB
    assert pids - {worker.pid for worker in sample.serving()}


@every_server
def test_a_busy_worker_that_has_grown_is_replaced_from_strategy_high_on(sample, server):
    sample.start(server, MEMPRESSURE_BUDGET="400MiB")
    sample.fill()
    before, run = sample.used(), sample.loop()
    with Squares(sample.port, clients=8) as load:
        until(lambda: load.answers > 200, "requests under way", seconds=DEADLINE)
        until(lambda: run() and sample.recycled(), lambda: str(sample.cycles), seconds=DEADLINE)
        answers = load.answers
        until(lambda: load.answers > answers + 500, "500 more answers", seconds=DEADLINE)
    assert load.failures == []
    sample.is_complete()
    for action in sample.recycled():
        assert "grown by" in action.reason
        assert action.reclaimed_bytes > 40 * MIB
    assert sample.used() < before - 50 * MIB


def test_a_busy_worker_that_has_grown_little_is_left_alone_and_the_reason_is_recorded(sample):
    sample.start("gthread", MEMPRESSURE_BUDGET="150MiB", SAMPLE_CACHE_MIB="10")
    sample.fill()
    run, pids = sample.loop(), {worker.pid for worker in sample.serving()}
    with Squares(sample.port, clients=8) as load:
        until(lambda: load.answers > 200, "requests under way", seconds=DEADLINE)
        until(lambda: run() or any(cycle.skips for cycle in sample.cycles), "a cycle", seconds=DEADLINE)
    assert load.failures == []
    assert {worker.pid for worker in sample.serving()} == pids
    assert sample.recycled() == []
    assert any("which is below 32.0 MiB" in skip.reason for skip in sample.cycles[-1].skips)


def test_where_fresh_workers_alone_take_too_much_the_reason_says_so_with_the_sum(sample):
    sample.start("sync", MEMPRESSURE_BUDGET="80MiB")
    run = sample.loop()

    def reasons():
        run()  # the first cycle only trims
        return {cycle.reason for cycle in sample.cycles if cycle.reason}

    [reason] = until(reasons, "a cycle that can do nothing", seconds=DEADLINE)
    assert sample.recycled() == []
    start, _, ways = reason.partition("; ")
    assert re.fullmatch(r"fresh workers alone take \d+ % of the budget", start)
    assert re.fullmatch(r"raise it above \d+ MiB, run one worker less, or share by --share", ways)


class Children(Sample):
    """The sample as Celery's children."""

    def __init__(self, processes, runtime, url):
        super().__init__(processes, runtime)
        self.counts = redis.Redis.from_url(f"{url}/2")
        self._url = url

    def start(self, **environ):
        command = [sys.executable, "-m", "celery", "-A", f"{SAMPLE}:tasks", "worker", "--concurrency=2"]
        environ = self.environ(SAMPLE_REDIS=self._url, **environ)
        self.process = self._processes.start("celery", command, environ=environ)
        self.is_complete()

    def filled(self):
        """Return how often each child was asked to fill its cache."""
        return {pid: int(times) for pid, times in self.counts.hgetall("filled").items()}


@pytest.fixture
def children(processes, runtime_dir, redis_url):
    children = Children(processes, runtime_dir, redis_url)
    yield children
    children.process.stop()
    assert not children.files(), "the workers left files behind"


def test_an_idle_child_of_celery_gives_back_its_cache_and_every_task_runs_once(children, redis_url):
    children.start(MEMPRESSURE_BUDGET="400MiB", **IDLE)
    run, sent, enough = children.loop(recycle_growth=0), [], threading.Event()

    with Celery("client", broker=f"{redis_url}/0") as client:

        def fill():
            begun = sum(children.filled().values())
            for _ in range(2):
                client.send_task(f"{SAMPLE}.fill_cache")
            until(lambda: sum(children.filled().values()) == begun + 2, "the tasks to end", seconds=DEADLINE)
            return len(children.filled()) == 2

        def send():
            while not enough.wait(1.0):
                sent.append(client.send_task(f"{SAMPLE}.square", (len(sent),)))

        until(fill, "both children to have filled their caches", seconds=DEADLINE)
        before, load = children.used(), threading.Thread(target=send)
        load.start()
        try:
            until(lambda: run() and children.recycled(), lambda: str(children.cycles), seconds=DEADLINE)
        finally:
            enough.set()
            load.join()
    numbers = {str(number).encode(): b"1" for number in range(len(sent))}
    until(lambda: children.counts.hgetall("done") == numbers, "every task to have run once", seconds=DEADLINE)
    children.is_complete()
    [action, *_] = children.recycled()
    assert (action.packages, action.errors) == ((), ())
    assert action.reclaimed_bytes > 50 * MIB
    assert children.used() < before - 50 * MIB
    assert "WorkerLost" not in children.process.log.read_text()
