"""The agent in real Celery workers: what it publishes, and that recycling a child loses no task and runs none twice."""

import json
import os
import signal
import sys
import threading

import pytest
import redis
from celery import Celery

from tests.support.servers.workers import Workers
from tests.support.waiting import until

DEADLINE = 60.0
RECYCLES = 12
WAITING = 40
SAMPLE = "tests.support.programs.celery_sample"


class Sample(Workers):
    """A Celery worker with tasks that count themselves."""

    def __init__(self, processes, runtime, url):
        super().__init__(runtime, "tasks")
        self.counts = redis.Redis.from_url(f"{url}/2")
        self.results = redis.Redis.from_url(f"{url}/1")
        self._url = url
        self._processes = processes

    def start(self, *options, command=("celery", "-A", SAMPLE, "worker"), workers=2, **environ):
        command = [sys.executable, "-m", *command, "--concurrency", "2", "--loglevel", "INFO", *options]
        environ = self.environ(SAMPLE_REDIS=self._url, **environ)
        self.process = self._processes.start("celery", command, environ=environ)
        self.process.wait_until(lambda: len(self.serving()) == workers, seconds=DEADLINE)

    def count(self, name):
        """Return how often each number has begun or is done."""
        return {int(number): int(times) for number, times in self.counts.hgetall(name).items()}

    def answers(self, ids):
        """Return what the worker has stored as the results of these tasks, in their order, leaving out what lacks."""
        stored = [json.loads(text) for text in self.results.mget(f"celery-task-meta-{task}" for task in ids) if text]
        assert {answer["status"] for answer in stored} <= {"SUCCESS"}
        return [answer["result"] for answer in stored]


class Load:
    """Sends numbers 0, 1, 2, ... to be squared, so that some always wait; `ids` are the tasks'."""

    def __init__(self, sample, client):
        self.ids = []
        self._sample = sample
        self._client = client
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._enough.set()
        self._thread.join()

    def _send(self):
        while not self._enough.wait(0.01):
            while len(self.ids) < self._sample.counts.hlen("done") + WAITING:
                self.ids.append(self._client.send_task(f"{SAMPLE}.square", (len(self.ids),)).id)


@pytest.fixture
def sample(processes, runtime_dir, redis_url):
    sample = Sample(processes, runtime_dir, redis_url)
    yield sample
    sample.process.stop()
    assert not sample.files(), "the workers left files behind"


@pytest.fixture
def load(sample, redis_url):
    """Numbers to be squared: always some that wait, while the block runs."""
    # No result backend: it would keep a connection to Redis for longer than there is one.
    with Celery("client", broker=f"{redis_url}/0") as client:
        yield Load(sample, client)


def all_have_worked(sample):
    return len(sample.serving()) == 2 and not any(worker.recycle_refused for worker in sample.serving())


@pytest.mark.parametrize("late", ["0", "1"], ids=["early", "late"])
def test_recycling_under_load_runs_every_task_once(sample, load, late):
    sample.start(SAMPLE_ACKS_LATE=late)
    with load:
        for _ in range(RECYCLES):
            until(lambda: all_have_worked(sample), "each child to have run a task", seconds=DEADLINE)
            oldest = min(sample.serving(), key=lambda worker: worker.started)
            outcome = sample.recycle(oldest, "decimal")
            assert (outcome.workers, outcome.skipped, outcome.errors) == (1, (), ())
    numbers = range(len(load.ids))
    until(lambda: len(sample.answers(load.ids)) == len(numbers), "all answers", seconds=DEADLINE)
    answers = sample.answers(load.ids)
    assert [square for square, _ in answers] == [number**2 for number in numbers]
    assert sample.count("begun") == dict.fromkeys(numbers, 1)
    assert sample.count("done") == dict.fromkeys(numbers, 1)
    assert len({pid for _, pid in answers}) == 2 + RECYCLES
    assert "WorkerLost" not in sample.process.log.read_text()


def test_a_child_killed_while_it_leaves_and_its_successor_while_it_starts_are_replaced(sample, load):
    sample.start(SAMPLE_ACKS_LATE="1", SAMPLE_TASK_SECONDS="0.5")
    outcomes = []
    with load:
        until(lambda: all_have_worked(sample), "each child to have run a task", seconds=DEADLINE)
        known, child = sample.children(), sample.serving()[0]
        recycling = threading.Thread(target=lambda: outcomes.append(sample.recycle(child, "decimal")))
        recycling.start()
        until(lambda: child.pid not in {worker.pid for worker in sample.serving()}, "it to be told")
        os.kill(child.pid, signal.SIGKILL)
        new = until(lambda: set(sample.children()) - set(known), "its successor", seconds=DEADLINE)
        for pid in new:
            os.kill(pid, signal.SIGKILL)
        recycling.join(2 * DEADLINE)
        assert [(o.workers, o.skipped, o.errors) for o in outcomes] == [(1, (), ())]
        until(lambda: len(sample.serving()) == len(sample.children()) == 2, "two children", seconds=DEADLINE)
        assert not {child.pid, *new} & {worker.pid for worker in sample.serving()}
    # What a killed child ran is begun anew, acknowledged late as it was; nothing else is.
    numbers = range(len(load.ids))
    until(lambda: len(sample.answers(load.ids)) == len(numbers), "all answers", seconds=DEADLINE)
    assert [square for square, _ in sample.answers(load.ids)] == [number**2 for number in numbers]
    assert sum(sample.count("begun").values()) <= len(numbers) + 2
    until(lambda: len(sample.files()) == 4, "the files of the killed to be removed")


def test_an_idle_child_leaves_at_once_though_no_task_comes(sample, load):
    sample.start()
    with load:
        until(lambda: all_have_worked(sample), "each child to have run a task", seconds=DEADLINE)
    until(lambda: len(sample.answers(load.ids)) == len(load.ids), "all answers", seconds=DEADLINE)
    first = sample.serving()[0]
    assert sample.order(first, id="r1", op="recycle")["skipped"] is None
    until(lambda: first.pid not in {worker.pid for worker in sample.all()}, "it to leave", seconds=DEADLINE)
    until(lambda: len(sample.serving()) == 2, "its successor", seconds=DEADLINE)


def test_a_child_is_described_as_celery_runs_it_and_the_main_process_is_none(sample):
    sample.start()
    assert len(sample.all()) == 2
    until(lambda: all(worker.baseline_bytes > 0 for worker in sample.all()), "both to be measured")
    for worker in sample.all():
        assert (worker.supervisor, worker.supervisor_pid) == ("celery", sample.process.pid)
        # Its end would end the whole pool now: the main process has just begun.
        assert "has run no task yet" in worker.recycle_refused
        assert worker.baseline_bytes <= worker.private_bytes
        assert "has run no task yet" in sample.order(worker, id="r1", op="recycle")["skipped"]
        assert "forked" in worker.trim_refused
        assert "forked" in sample.order(worker, id="t1", op="trim")["skipped"]


def test_a_main_process_that_had_an_agent_before_it_was_one_gives_it_up(sample):
    sample.start(command=("tests.support.programs.celery_sample", "worker"))
    until(lambda: sample.process.pid not in {worker.pid for worker in sample.all()}, "it to be none")
    assert {worker.supervisor_pid for worker in sample.serving()} == {sample.process.pid}


@pytest.mark.parametrize(("pool", "name"), [("solo", "solo"), ("threads", "thread")])
def test_a_pool_in_the_main_process_is_not_recycled(sample, pool, name):
    sample.start("--pool", pool, workers=1)
    [worker] = sample.all()
    assert (worker.pid, worker.supervisor) == (sample.process.pid, "")
    reason = f"Celery's {name} pool runs tasks in its main process"
    assert worker.recycle_refused.startswith(reason)
    assert sample.order(worker, id="r1", op="recycle")["skipped"].startswith(reason)
