"""The agent in real gunicorn workers: what it publishes, and that recycling loses no request."""

import os
import sys
from pathlib import Path

import pytest

from app.load import Load
from mempressure.act.executor import Executor
from mempressure.act.order_client import give_order
from mempressure.config.paths import socket_path
from mempressure.decide.plan import Action, Target
from mempressure.state.node_reader import read_node
from stack.engines import ROOT
from stack.processes import Processes, free_port
from stack.system import SAMPLE_ENVIRONMENT
from tests.support.waiting import until

DEADLINE = 60.0


class Sample:
    """The sample under gunicorn, and what its workers publish."""

    def __init__(self, processes, runtime, port):
        self.url = f"http://127.0.0.1:{port}"
        self.runtime = runtime
        self._processes = processes
        self._port = port

    def start(self, *options):
        command = [sys.executable, "-m", "gunicorn", "app.main:app", "--chdir", str(ROOT), "--no-control-socket"]
        self.process = self._processes.start("sample", [*command, "--bind", f"127.0.0.1:{self._port}", *options])
        self.process.wait_until(lambda: len(self.serving()) == 2, seconds=60)

    def read(self):
        return read_node(self.runtime, on_problem=lambda problem: pytest.fail(str(problem)))

    @property
    def app(self):
        return self.read().apps.get("sample")

    def serving(self):
        return [worker for worker in self.app.workers if worker.serving] if self.app else []

    def order(self, worker, **content):
        return give_order(socket_path(self.app.directory, worker.pid), content, timeout=20)


@pytest.fixture
def sample(tmp_path, runtime_dir):
    environ = {
        **SAMPLE_ENVIRONMENT,
        "MEMPRESSURE_APP": "sample",
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(tmp_path / "state"),
        "PYTHONPATH": str(ROOT),
    }
    with Processes(logs=tmp_path / "logs", environ=environ) as processes:
        yield Sample(processes, runtime_dir, free_port())
    left = [path for path in Path(runtime_dir, str(os.geteuid())).rglob("*") if not path.is_dir()]
    assert [path.name for path in left if path.parent.name != "processes"] == [], "the workers left files behind"


@pytest.fixture
def load(sample):
    loads = []

    def start(*kinds):
        load = Load(sample.url, clients=8, pause_seconds=0.005)
        load.use_only(*kinds)
        loads.append(load)
        load.start()
        return load

    yield start
    for load in loads:
        load.stop()


def holds(worker, *names):
    return set(names) <= {package.name for package in worker.packages if package.loaded}


def every_worker_holds(sample, *names):
    until(
        lambda: all(holds(worker, *names) for worker in sample.serving()),
        f"every worker to hold {' and '.join(names)}",
        seconds=DEADLINE,
    )


def recycle_largest(sample, executor):
    worker = max(executor.measure().apps["sample"].workers, key=lambda worker: worker.private_bytes)
    assert holds(worker, "sympy")
    action = Action("recycle", sample.app, ("sympy",), (Target(worker, {"sympy": 0.0}),), 0, "test")
    outcome = executor.carry_out(action, order_id=f"r{worker.pid}")
    assert (outcome.workers, outcome.skipped, outcome.errors) == (1, (), ())
    return outcome


def packages(sample):
    return [package for worker in sample.app.workers for package in worker.packages]


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_recycling_under_load_loses_no_request_and_gives_the_memory_back(sample, load, worker_class):
    sample.start("--workers", "2", "--worker-class", worker_class, "--threads", "4")
    clients = load("ping", "derivative", "report")
    every_worker_holds(sample, "sympy", "pandas")
    executor = Executor(sample.read)
    for _ in range(4):
        # It is in use all the time: recycled all the same, so that requests are under way when it happens.
        recycle_largest(sample, executor)
        before = clients.requests
        until(lambda before=before: clients.requests > before + 200, "200 more requests", seconds=DEADLINE)
        every_worker_holds(sample, "sympy")
    # Under use the successor fills at once; what recycling gives back shows where nobody needs it.
    clients.use_only("ping")
    until(lambda: all(not package.active_calls for package in packages(sample)), "no use of any package")
    assert recycle_largest(sample, executor).reclaimed_bytes > 20 << 20
    clients.stop()
    assert clients.failures == []
    assert clients.requests > 1000


def test_a_worker_is_described_as_gunicorn_runs_it(sample):
    sample.start("--workers", "2")
    for worker in sample.serving():
        assert (worker.supervisor, worker.supervisor_pid) == ("gunicorn", sample.process.pid)
        assert (worker.recycle_refused, worker.trim_refused) == ("", "")
        assert worker.supervisor_bytes > 5 << 20
    assert sample.app.memory.total == 320 << 20


def test_a_preloading_arbiter_is_no_worker_and_its_workers_are_not_trimmed(sample):
    sample.start("--workers", "2", "--preload")
    workers = sample.serving()
    assert sample.process.pid not in {worker.pid for worker in workers}
    for worker in workers:
        assert "with what it was forked from" in worker.trim_refused
        answer = sample.order(worker, id=f"t{worker.pid}", op="trim")
        assert answer["skipped"] == worker.trim_refused


def test_a_worker_with_a_backlog_of_its_own_is_not_recycled(sample):
    sample.start("--workers", "2", "--reuse-port")
    for worker in sample.serving():
        answer = sample.order(worker, id=f"r{worker.pid}", op="recycle")
        assert "reuse_port" in answer["skipped"]


def test_a_worker_killed_outright_is_no_longer_counted(sample):
    sample.start("--workers", "2")
    victim = sample.serving()[0]
    os.kill(victim.pid, 9)
    until(
        lambda: victim.pid not in {worker.pid for worker in sample.app.workers},
        "the killed worker to be left out",
        seconds=DEADLINE,
    )
    until(lambda: len(sample.serving()) == 2, "its successor", seconds=DEADLINE)
    # What it could not remove itself its successor has removed: the fixture looks.
