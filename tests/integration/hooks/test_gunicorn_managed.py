"""`mempressure run --manage` around gunicorn with an application that knows nothing of it."""

import os

import psutil
import pytest

from tests.support.servers.clients import Clients
from tests.support.waiting import until

DEADLINE = 60.0
SERVICE = """
import os

import networkx


def app(environ, start_response):
    if environ["PATH_INFO"] == "/late":
        import sympy
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


class Shoppers(Clients):
    """Asks again and again, in two threads, until the block ends."""

    def __init__(self, shop):
        super().__init__([self._ask] * 2)
        self.answers = []
        self._shop = shop

    def _ask(self):
        while not self.enough.wait(0.005):
            self.answers.append(self._shop.get())


def packages(worker):
    return {package.name: package for package in worker.packages}


@pytest.fixture
def managed(shop):
    shop.write(service=SERVICE)
    return shop


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_workers_are_managed_and_one_is_replaced_while_requests_go_on(managed, worker_class):
    managed.start(managed.gunicorn("--worker-class", worker_class), "--manage")
    arbiter = managed.process.pid
    for worker in managed.serving():
        assert (worker.supervisor, worker.supervisor_pid, worker.role) == ("gunicorn", arbiter, "worker")
        assert worker.recycle_refused == ""
        assert {"networkx"} <= packages(worker).keys()
        assert packages(worker)["networkx"].source == "import"
    with Shoppers(managed) as clients:
        until(lambda: len(clients.answers) > 20, "requests", seconds=DEADLINE)
        victim = managed.serving()[0]
        successor = managed.replaced(victim)
        until(lambda: str(successor.pid) in clients.answers, "an answer of the successor", seconds=DEADLINE)
    assert None not in clients.answers
    assert not psutil.pid_exists(victim.pid)
    assert managed.said == []


def test_what_a_worker_imports_late_is_known(managed):
    managed.start(managed.gunicorn(), "--manage")
    asked = set()

    def late():
        asked.add(int(managed.get("/late")))
        workers = managed.serving()
        held = [packages(worker)["sympy"].load_seconds for worker in workers if "sympy" in packages(worker)]
        return len(held) == 2 and all(held) and workers

    for worker in until(late, "both to have imported sympy", seconds=DEADLINE):
        assert packages(worker)["sympy"].late_bytes > 10 << 20
        assert packages(worker)["networkx"].late_bytes == 0
    assert len(asked) == 2


def test_an_application_that_preloads_is_managed_and_its_workers_share_what_they_did(managed):
    managed.start(managed.gunicorn("--preload"), "--manage")
    for worker in managed.serving():
        assert (worker.supervisor_pid, worker.recycle_refused) == (managed.process.pid, "")
        assert "with what it was forked from" in worker.trim_refused
        assert "networkx" not in packages(worker)  # the parent's, and nothing that recycling would give back
    victim = managed.serving()[0]
    managed.replaced(victim)
    assert str(victim.pid) not in {managed.get() for _ in range(10)}


def test_a_dry_run_declines_what_is_ordered_and_says_so(managed):
    managed.start(managed.gunicorn(), "--manage", "--dry-run")
    victim = managed.serving()[0]
    for operation in ("recycle", "trim"):
        answer = managed.order(victim, id=operation, op=operation)
        assert answer["skipped"] == "mempressure run --dry-run: nothing is done"
    assert managed.said == [
        f"mempressure: dry run: {operation} was ordered of worker {victim.pid}, and is not done"
        for operation in ("recycle", "trim")
    ]
    assert os.path.exists(f"/proc/{victim.pid}")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MEMPRESSURE_BUDGET": "a lot"}, "is not managed: MEMPRESSURE_BUDGET='a lot'"),
        ({"MEMPRESSURE_APP": "x" * 200}, "is not managed: MEMPRESSURE_APP="),
        ({"MEMPRESSURE_CONFIG": "/no/such/file"}, "is not managed: "),
        ({"MEMPRESSURE_RUNTIME_DIR": "/proc/here"}, "agent not started, this worker is not managed"),
    ],
)
@pytest.mark.parametrize("way", ["--manage", "--share"])
def test_what_keeps_it_from_being_managed_is_said_and_the_application_runs(managed, variables, said, way):
    managed.start(managed.gunicorn(), way, workers=0, **variables)
    assert until(managed.get, "an answer", seconds=DEADLINE).isdigit()
    log = managed.process.log
    until(lambda: said in log.read_text(), lambda: f"{said} in {log.read_text()}", seconds=DEADLINE)
    managed.process.stop()
    assert "Traceback" not in log.read_text()
