"""The agent in real uvicorn workers: what it publishes, and that recycling loses no request."""

import base64
import os
import signal
import socket
import sys
import threading

import psutil
import pytest

from app.load import Load
from stack.engines import ROOT
from stack.processes import Processes, free_port
from tests.support.servers.squares import Squares
from tests.support.servers.workers import Workers, holds
from tests.support.waiting import until

DEADLINE = 60.0
RECYCLES = 4


class Sample(Workers):
    """The sample under uvicorn."""

    def __init__(self, processes, runtime):
        super().__init__(runtime, "sample")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._processes = processes

    def start(self, *options, app="app.main:app", workers=2, **environ):
        command = [sys.executable, "-m", "uvicorn", app, "--port", str(self.port), "--no-access-log"]
        self.process = self._processes.start("sample", [*command, *options], environ=self.environ(**environ))
        self.process.wait_until(lambda: len(self.serving()) == workers, seconds=DEADLINE)


def connected(pid, connection):
    """Return whether a process holds the other end of a connection."""
    there = connection.getsockname()
    return any(other.raddr == there for other in psutil.Process(pid).net_connections() if other.raddr)


def refusals(sample):
    """Return why each worker is not recycled, by its process id."""
    return {worker.pid: worker.recycle_refused for worker in sample.serving()}


@pytest.fixture
def sample(tmp_path, runtime_dir):
    with Processes(logs=tmp_path / "logs", environ={}) as processes:
        sample = Sample(processes, runtime_dir)
        yield sample
    assert not sample.files(), "the workers left files behind"


@pytest.fixture
def load(sample):
    clients = Load(sample.url, clients=8, pause_seconds=0.005)
    yield clients
    clients.stop()


def test_recycling_under_load_loses_no_request_and_gives_the_memory_back(sample, load):
    sample.start("--workers", "2", "--interface", "wsgi")
    load.use_only("ping", "derivative", "report")
    load.start()
    for _ in range(RECYCLES):
        until(lambda: all(holds(w, "sympy", "pandas") for w in sample.serving()), "both loaded", seconds=DEADLINE)
        worker = max(sample.serving(), key=lambda worker: worker.private_bytes)
        outcome = sample.recycle(worker, "sympy")
        assert (outcome.workers, outcome.skipped, outcome.errors) == (1, (), ())
        assert outcome.reclaimed_bytes > 20 << 20
        before = load.requests
        until(lambda before=before: load.requests > before + 200, "200 more requests", seconds=DEADLINE)
    load.stop()
    assert load.failures == []
    assert load.requests > 200 * RECYCLES


def test_full_speed_clients_that_never_ask_twice_get_every_answer(sample):
    sample.start("--workers", "2", app="tests.support.programs.asgi_sample:app")
    with Squares(sample.port, clients=12) as load:
        for _ in range(2 * RECYCLES):
            outcome = sample.recycle(min(sample.serving(), key=lambda worker: worker.started))
            assert (outcome.workers, outcome.skipped, outcome.errors) == (1, (), ())
            before = load.answers
            until(lambda before=before: load.answers > before + 500, "500 more answers", seconds=DEADLINE)
    assert load.failures == []


def test_a_worker_killed_while_it_drains_and_its_successor_while_it_boots_are_replaced(sample, tmp_path):
    sample.start("--workers", "2", app="tests.support.programs.asgi_sample:app", SAMPLE_DIR=str(tmp_path))
    held_up, known = tmp_path / "held-up", sample.children()
    held_up.touch()
    outcomes = []
    with socket.create_connection(("127.0.0.1", sample.port)) as idle:  # it is drained for as long as this is open
        idle.sendall(b"GET /square/3 HTTP/1.1\r\nHost: sample\r\n\r\n")
        idle.settimeout(DEADLINE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n9"):
            part = idle.recv(4096)
            assert part, answer
            answer += part
        for worker in sample.serving():
            if connected(worker.pid, idle):
                break
        recycling = threading.Thread(target=lambda: outcomes.append(sample.recycle(worker)))
        recycling.start()
        until(lambda: worker.pid not in {w.pid for w in sample.serving()}, "it to drain")
        os.kill(worker.pid, signal.SIGKILL)
    successor = until(lambda: next((pid for pid in sample.children() if pid not in known), None), "its successor")
    os.kill(successor, signal.SIGKILL)
    known.append(successor)
    until(lambda: any(pid not in known for pid in sample.children()), "the successor's", seconds=DEADLINE)
    held_up.unlink()
    recycling.join(DEADLINE + 30)
    assert [(o.workers, o.skipped, o.errors) for o in outcomes] == [(1, (), ())]
    assert len(sample.serving()) == 2
    assert {path.stem for path in sample.files()} == {str(worker.pid) for worker in sample.serving()}


def test_a_worker_whose_server_would_cut_its_requests_is_not_recycled(sample):
    options = ("--workers", "2", "--timeout-graceful-shutdown", "20")
    sample.start(*options, app="tests.support.programs.asgi_sample:app", MEMPRESSURE_LONGEST_REQUEST="30")
    reason = "uvicorn's timeout_graceful_shutdown is 20 s"
    until(lambda: all(worker.baseline_bytes > 1 << 20 for worker in sample.serving()), "both to be measured")
    for worker in sample.serving():
        assert reason in worker.recycle_refused
        assert reason in sample.order(worker, id="r1", op="recycle")["skipped"]


def test_a_request_under_way_is_answered_by_the_worker_that_ends(sample):
    sample.start("--workers", "2", app="tests.support.programs.asgi_sample:app")
    before = {worker.pid for worker in sample.serving()}
    with socket.create_connection(("127.0.0.1", sample.port)) as connection:
        connection.settimeout(DEADLINE)
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: sample\r\n\r\n")
        begun = b""
        while not (first := begun.partition(b"\r\n\r\n")[2]).endswith(b"\n"):
            begun += connection.recv(4096)
        pid = int(first)
        worker = next(worker for worker in sample.serving() if worker.pid == pid)
        assert sample.order(worker, id="r1", op="recycle")["skipped"] is None
        rest = b"".join(iter(lambda: connection.recv(4096), b""))  # until the worker closes: it was drained
    assert rest.endswith(b"the end")
    until(lambda: {w.pid for w in sample.serving()} - before, "the successor", seconds=DEADLINE)


def test_a_worker_that_sends_an_endless_response_is_not_recycled_until_it_ends(sample):
    sample.start("--workers", "2", app="tests.support.programs.asgi_sample:app")
    with socket.create_connection(("127.0.0.1", sample.port)) as connection:
        connection.settimeout(DEADLINE)
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: sample\r\n\r\n")
        begun = b""
        while b"data: " not in begun or not begun.endswith(b"\n\n\r\n"):
            begun += connection.recv(1)
        pid = int(begun.partition(b"data: ")[2])
        worker = next(worker for worker in sample.serving() if worker.pid == pid)
        skipped = sample.order(worker, id="r1", op="recycle")["skipped"]
        assert "1 response without a declared length" in skipped
        assert "--timeout-graceful-shutdown" in skipped
        until(lambda: "declared length" in refusals(sample)[pid], "the refusal to be published")
        until(lambda: connection.recv(4096), "the stream to go on")
        assert pid in {worker.pid for worker in sample.serving()}
    until(lambda: refusals(sample)[pid] == "", "the end of the response to be seen")
    assert sample.order(worker, id="r2", op="recycle")["skipped"] is None
    until(lambda: pid not in {worker.pid for worker in sample.serving()}, "its end", seconds=DEADLINE)
    until(lambda: len(sample.serving()) == 2, "its successor", seconds=DEADLINE)


def test_a_worker_whose_server_ends_endless_responses_is_recycled(sample):
    options = ("--workers", "2", "--timeout-graceful-shutdown", "3")
    sample.start(*options, app="tests.support.programs.asgi_sample:app")
    with socket.create_connection(("127.0.0.1", sample.port)) as connection:
        connection.settimeout(DEADLINE)
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: sample\r\n\r\n")
        begun = b""
        while b"data: " not in begun or not begun.endswith(b"\n\n\r\n"):
            begun += connection.recv(1)
        pid = int(begun.partition(b"data: ")[2])
        worker = next(worker for worker in sample.serving() if worker.pid == pid)
        assert sample.order(worker, id="r1", op="recycle")["skipped"] is None
        until(lambda: not connection.recv(4096), "the server to end the response", seconds=DEADLINE)
    until(lambda: len(sample.serving()) == 2, "its successor", seconds=DEADLINE)


def test_a_worker_is_described_as_uvicorn_runs_it_and_its_parent_is_none(sample):
    sample.start("--workers", "2", "--interface", "wsgi")
    assert sample.process.pid not in {worker.pid for worker in sample.all()}
    for worker in sample.serving():
        assert (worker.supervisor, worker.supervisor_pid) == ("uvicorn", sample.process.pid)
        assert (worker.recycle_refused, worker.trim_refused) == ("", "")
        assert worker.supervisor_bytes > 1 << 20


@pytest.mark.parametrize(
    ("options", "reason"),
    [((), "runs without --workers"), (("--reload", "--reload-dir", str(ROOT / "app")), "runs with --reload")],
)
def test_a_server_that_nothing_would_replace_is_not_recycled(sample, options, reason):
    sample.start("--interface", "wsgi", *options, workers=1)
    # Without workers uvicorn imports the application before it has a server, which the next tick finds.
    until(lambda: reason in sample.all()[0].recycle_refused, "the reason to be published", seconds=DEADLINE)
    [worker] = sample.all()
    assert worker.supervisor == ""
    assert reason in sample.order(worker, id="r1", op="recycle")["skipped"]


def test_a_worker_with_an_open_websocket_is_not_recycled_until_it_has_closed(sample):
    sample.start("--workers", "2", app="tests.support.programs.asgi_sample:app")
    with socket.create_connection(("127.0.0.1", sample.port)) as connection:
        connection.settimeout(DEADLINE)
        key = base64.b64encode(bytes(16)).decode()
        head = "GET /socket HTTP/1.1\r\nHost: sample\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        connection.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        assert b" 101 " in connection.recv(4096)
        holder = until(lambda: next((w for w in sample.serving() if w.recycle_refused), None), "it to be published")
        assert "1 open WebSocket," in sample.order(holder, id="r1", op="recycle")["skipped"]
    until(lambda: not any(w.recycle_refused for w in sample.serving()), "it to be closed")
