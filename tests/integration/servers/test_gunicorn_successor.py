"""A sole gunicorn worker and its successor, which serves first; and both of them killed at each step."""

import http.client
import os
import signal
import sys
import threading
from contextlib import closing

import pytest

from stack.processes import Processes, free_port
from tests.support.servers.squares import Squares
from tests.support.servers.workers import Workers
from tests.support.waiting import until

DEADLINE = 60.0
RECYCLES = 4


class Sample(Workers):
    """The squares under gunicorn; `held_up` is a file that keeps new workers from serving."""

    def __init__(self, processes, runtime, directory):
        super().__init__(runtime, "squares")
        self.port = free_port()
        self.held_up, self.begun = directory / "held-up", directory / "begun"
        self._directory = directory
        self._processes = processes

    def start(self, *options, workers=1, **environ):
        command = [sys.executable, "-m", "gunicorn", "tests.support.programs.wsgi_sample:app", "--no-control-socket"]
        options = ["--bind", f"127.0.0.1:{self.port}", "--workers", str(workers), *options]
        environ = self.environ(SAMPLE_DIR=str(self._directory), **environ)
        self.process = self._processes.start("squares", [*command, *options], environ=environ)
        self.process.wait_until(lambda: len(self.serving()) == workers, seconds=DEADLINE)

    def log(self):
        return self.process.log.read_text()

    def newcomer(self, *known):
        """Return the pid of a child that is not `known`, once there is one."""
        return until(lambda: next((pid for pid in self.children() if pid not in known), None), "a new child")

    def has_as_many_as_told(self, workers):
        """Wait until so many serve and there is no other child; end one and see that only one takes its place."""
        self.settled(workers)
        victim = self.serving()[0].pid
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in self.children(), "its end to be noticed")
        self.settled(workers)

    def settled(self, workers):
        until(lambda: len(self.serving()) == len(self.children()) == workers, self.log, seconds=DEADLINE)


@pytest.fixture
def sample(tmp_path, runtime_dir):
    with Processes(logs=tmp_path / "logs", environ={}) as processes:
        sample = Sample(processes, runtime_dir, tmp_path)
        yield sample
    assert not sample.files(), "the workers left files behind"


@pytest.fixture
def recycled(sample):
    """Recycle a worker in a thread; `outcome` waits for what came of it."""

    class Recycling:
        def __init__(self, worker):
            self._outcomes = []
            self._thread = threading.Thread(target=lambda: self._outcomes.append(sample.recycle(worker)))
            self._thread.start()

        def outcome(self):
            self._thread.join(DEADLINE + 30)
            return self._outcomes[0]

    return Recycling


@pytest.fixture
def slow_request(sample):
    """A request for the slow answer; `pid` is its worker's, `answer` waits and returns it, b"" where it was cut."""

    class Slow:
        def __init__(self):
            self._answers = []
            sample.begun.unlink(missing_ok=True)
            self._thread = threading.Thread(target=self._ask)
            self._thread.start()
            self.pid = int(until(lambda: sample.begun.exists() and sample.begun.read_text(), "it to begin"))

        def _ask(self):
            with closing(http.client.HTTPConnection("127.0.0.1", sample.port, timeout=DEADLINE)) as connection:
                try:
                    connection.request("GET", "/slow")
                    self._answers.append(connection.getresponse().read())
                except (OSError, http.client.HTTPException):
                    self._answers.append(b"")

        def answer(self):
            self._thread.join(DEADLINE)
            return self._answers[0]

    return Slow


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_a_sole_worker_is_recycled_under_load_once_its_successor_serves(sample, worker_class):
    sample.start("--worker-class", worker_class, "--threads", "4")
    with Squares(sample.port, clients=4) as load:
        for _ in range(RECYCLES):
            [old] = sample.serving()
            outcome = sample.recycle(old)
            assert (outcome.workers, outcome.skipped, outcome.errors) == (1, (), ())
            [new] = sample.serving()
            log = sample.log()
            # gunicorn says the one when it has forked, the other when the worker has left its loop.
            assert log.index(f"Booting worker with pid: {new.pid}") < log.index(f"Worker exiting (pid: {old.pid})")
            before = load.answers
            until(lambda before=before: load.answers > before + 200, "200 more answers", seconds=DEADLINE)
    assert load.failures == []
    sample.has_as_many_as_told(1)


def test_a_sole_worker_whose_successor_never_comes_up_goes_on(sample, recycled):
    sample.start(SAMPLE_SUCCESSOR_SECONDS="2")
    [worker] = sample.serving()
    with Squares(sample.port, clients=2) as load:
        sample.held_up.touch()
        assert sample.order(worker, id="r1", op="recycle")["skipped"] is None
        sample.newcomer(worker.pid)
        until(lambda: "no successor came up in time" in sample.log(), "it to be told", seconds=DEADLINE)
        assert sample.children() == [worker.pid]
        until(lambda: [w.pid for w in sample.serving()] == [worker.pid], "it to say that it serves")
        before = load.answers
        until(lambda: load.answers > before + 200, "200 more answers", seconds=DEADLINE)
        sample.held_up.unlink()
        assert recycled(worker).outcome().workers == 1
    assert load.failures == []
    sample.has_as_many_as_told(1)


def test_a_sole_worker_killed_while_its_successor_boots_leaves_one_worker(sample, recycled):
    sample.start()
    [worker] = sample.serving()
    sample.held_up.touch()
    recycling = recycled(worker)
    first = sample.newcomer(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)
    sample.newcomer(worker.pid, first)  # gunicorn has still been told to have two
    sample.held_up.unlink()
    outcome = recycling.outcome()
    assert (outcome.workers, outcome.skipped, outcome.errors) == (1, (), ())
    sample.settled(1)
    sample.has_as_many_as_told(1)


def test_a_successor_killed_while_it_boots_has_a_successor(sample, recycled):
    sample.start()
    [worker] = sample.serving()
    with Squares(sample.port, clients=2) as load:
        sample.held_up.touch()
        recycling = recycled(worker)
        first = sample.newcomer(worker.pid)
        os.kill(first, signal.SIGKILL)
        second = sample.newcomer(worker.pid, first)
        sample.held_up.unlink()
        outcome = recycling.outcome()
        assert (outcome.workers, outcome.skipped, outcome.errors) == (1, (), ())
        assert [w.pid for w in sample.serving()] == [second]
    assert load.failures == []
    sample.has_as_many_as_told(1)


def test_of_two_workers_the_one_that_was_chosen_drains_and_answers(sample, recycled, slow_request):
    sample.start("--worker-class", "gthread", "--threads", "4", workers=2)
    request = slow_request()
    worker = next(worker for worker in sample.serving() if worker.pid == request.pid)
    with Squares(sample.port, clients=4) as load:
        outcome = recycled(worker).outcome()
    assert (outcome.workers, outcome.skipped, outcome.errors) == (1, (), ())
    assert request.answer() == b"slow"
    assert load.failures == []
    assert "ttin" not in sample.log()
    sample.has_as_many_as_told(2)


def test_a_worker_killed_while_it_drains_and_its_successor_while_it_boots_are_replaced(sample, recycled, slow_request):
    sample.start(workers=2)
    request = slow_request()
    known = sample.children()
    worker = next(worker for worker in sample.serving() if worker.pid == request.pid)
    sample.held_up.touch()
    recycling = recycled(worker)
    until(lambda: worker.pid not in {w.pid for w in sample.serving()}, "it to drain")
    os.kill(worker.pid, signal.SIGKILL)
    assert request.answer() == b""
    successor = sample.newcomer(*known)
    os.kill(successor, signal.SIGKILL)
    sample.newcomer(*known, successor)
    sample.held_up.unlink()
    outcome = recycling.outcome()
    assert (outcome.workers, outcome.skipped, outcome.errors) == (1, (), ())
    sample.has_as_many_as_told(2)


def test_a_worker_that_could_not_finish_its_requests_is_not_recycled(sample):
    sample.start("--timeout", "20", MEMPRESSURE_LONGEST_REQUEST="30")
    [worker] = sample.serving()
    assert "gunicorn's timeout is 20 s" in worker.recycle_refused
    assert "gunicorn's timeout is 20 s" in sample.order(worker, id="r1", op="recycle")["skipped"]


def test_a_request_that_takes_longer_than_the_grace_keeps_its_worker(sample, slow_request):
    sample.start("--worker-class", "gthread", "--threads", "4", "--graceful-timeout", "1")
    request = slow_request()
    until(lambda: "has run for" in sample.serving()[0].recycle_refused, "it to be noticed")
    assert request.answer() == b"slow"
    until(lambda: sample.serving()[0].recycle_refused == "", "its end to be noticed")


@pytest.mark.parametrize("options", [(), ("--preload",)])
def test_a_worker_knows_what_it_took_when_it_began_to_serve(sample, options):
    sample.start(*options)
    until(lambda: sample.serving()[0].baseline_bytes > 0, "it to be measured")
    [worker] = sample.serving()
    assert worker.baseline_bytes <= worker.private_bytes
    # A forked worker shares what it was preloaded with.
    assert (worker.baseline_bytes < 5 << 20) is bool(options)
