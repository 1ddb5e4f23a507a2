"""Real gunicorn workers: trimming is refused where the parent had loaded, callbacks are called whatever they do."""

import os
import sys
import time
import urllib.request

import pytest

from mempressure.act.order_client import give_order
from mempressure.config.configuration import load_configuration
from mempressure.config.paths import socket_path
from mempressure.control.standalone import LOCK_NAME
from mempressure.measure.process import private_bytes
from mempressure.state.node_reader import read_node
from mempressure_exporter.collectors import Collectors
from stack.engines import ROOT
from stack.processes import Processes, free_port
from tests.support.builders.samples import printed
from tests.support.waiting import until

APPLICATION = """
import time
from mempressure import get_lazy_loader

loader = get_lazy_loader()
sympy = loader.import_module("sympy")
cache = {"filled": b"x" * 30_000_000}

@loader.on_pressure("high")
def drop(level):
    cache.clear()

@loader.on_pressure("emergency")
def hang(level):
    time.sleep(60)

@loader.on_pressure("high")
def fail(level):
    raise RuntimeError("no")

def app(environ, start_response):
    if environ["PATH_INFO"] == "/expand":
        sympy.expand("(x+1)**2")
    body = b"%d" % len(cache)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
LOADS_AT_IMPORT = APPLICATION + "\nsympy.expand('(x+1)**2')\n"
UNTRACKED = APPLICATION + "\nheld = [[] for _ in range(400_000)]\n"


@pytest.fixture
def shop(tmp_path, runtime_dir):
    """Start gunicorn with the text of an application; returns its workers' states and what asks them."""
    environ = {
        "MEMPRESSURE_APP": "shop",
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(tmp_path / "state"),
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
    }
    with Processes(logs=tmp_path / "logs", environ=environ) as processes:
        yield Shop(processes, tmp_path, runtime_dir)
    left = {path.name for path in (runtime_dir / str(os.geteuid())).iterdir()}
    assert left <= {LOCK_NAME}, "the workers left files behind"


class Shop:
    def __init__(self, processes, directory, runtime):
        self._processes = processes
        self._directory = directory
        self.runtime = runtime
        self.port = free_port()

    def start(self, text, *options):
        (self._directory / "shop_application.py").write_text(text)
        command = [sys.executable, "-m", "gunicorn", "shop_application:app", "--no-control-socket", "--workers", "2"]
        process = self._processes.start("shop", [*command, "--bind", f"127.0.0.1:{self.port}", *options])
        process.wait_until(lambda: len(self.workers) == 2, seconds=60)

    @property
    def workers(self):
        app = self.app
        return [worker for worker in app.workers if worker.serving] if app else []

    @property
    def app(self):
        return read_node(self.runtime, on_problem=lambda problem: pytest.fail(str(problem))).apps.get("shop")

    def get(self, path="/"):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            return int(response.read())

    def trim(self, worker):
        return self.order(worker, "trim", "high")

    def text(self):
        return (self._directory / "logs" / "shop.log").read_text()

    def order(self, worker, op, level):
        path = socket_path(self.runtime / str(os.geteuid()), worker.pid)
        return give_order(path, {"id": f"{op}{worker.pid}{level}", "op": op, "level": level}, timeout=20)


@pytest.mark.parametrize(
    ("text", "reason"),
    [(LOADS_AT_IMPORT, "forked from a process that had loaded sympy"), (UNTRACKED, "MiB with what it was forked from")],
)
def test_a_worker_forked_from_a_loaded_parent_is_not_trimmed_and_keeps_its_pages_shared(shop, tmp_path, text, reason):
    shop.start(text, "--preload")
    for worker in shop.workers:
        assert reason in worker.unsupported["trim"]
        assert worker.trim_refused == worker.unsupported["trim"]
        before = private_bytes(worker.pid)
        answer = shop.trim(worker)
        assert (answer["reclaimed_bytes"], answer["skipped"]) == (0, worker.trim_refused)
        answer = shop.order(worker, "callbacks", "high")
        assert (answer["skipped"], len(answer["notes"])) == (None, 2)
        assert private_bytes(worker.pid) - before < 4 << 20  # what it had unshared was 28 MB
    assert shop.get() == 0  # dropped in both
    environ = {"MEMPRESSURE_RUNTIME_DIR": str(shop.runtime), "MEMPRESSURE_STATE_DIR": str(tmp_path / "state")}
    samples = printed(Collectors(load_configuration(environ=environ), waits=False).collect())
    shown = {labels[0]: value for name, labels, value in samples if name == "mempressure_feature_supported"}
    assert (shown["trim"], shown["package_processes"], shown["accessed_bit"]) == (0, 1, 1)


def test_callbacks_are_called_whatever_they_do(shop):
    shop.start(APPLICATION, "--worker-class", "gthread", "--threads", "2")
    for worker in shop.workers:
        assert (worker.unsupported, worker.trim_refused, worker.callbacks) == ({}, "", 3)
        answer = shop.order(worker, "callbacks", "high")
        assert answer["skipped"] is None
        assert answer["reclaimed_bytes"] > 25 << 20
        drop, fail = answer["notes"]
        assert drop.startswith("drop gave back 2")  # 28.6 MiB and what else was free
        assert fail == "on_pressure callback fail failed: RuntimeError: no"
        assert shop.trim(worker)["skipped"] is None
    assert shop.get() == 0  # dropped in both
    worker = shop.workers[0]
    began = time.monotonic()
    answer = shop.order(worker, "callbacks", "emergency")
    assert time.monotonic() - began < 15, "whoever orders waits no longer"
    assert any("hang still runs after 5 s" in note for note in answer["notes"])
    assert shop.get("/expand") == 0
    until(
        lambda: next(w for w in shop.workers if w.pid == worker.pid).callback_failures == 3, "the failures to be told"
    )


GROWS = f"""
import os
os.environ.update(MEMPRESSURE_BUDGET="250MiB", MEMPRESSURE_ACTUATOR="127.0.0.1:{free_port()}")
{UNTRACKED}
loader.start()

@loader.on_pressure("medium")
def dropped():
    grown.clear()
    print("dropped in", os.getpid(), flush=True)

grown = []
answer = app

def app(environ, start_response):
    if environ["PATH_INFO"] == "/grow" and len(grown) < 9:  # enough for one of the two alone
        grown.append(bytearray(b"x") * 20_000_000)
    return answer(environ, start_response)
"""


def test_without_an_actuator_each_worker_of_a_loaded_parent_is_called_when_memory_gets_short(shop):
    shop.start(GROWS, "--preload")
    workers = shop.workers
    assert shop.app.memory.usage < 0.7
    assert all("MiB with what it was forked from" in worker.trim_refused for worker in workers)
    until(lambda: shop.get("/grow") >= 0 and "dropped in" in shop.text(), shop.text, seconds=40)
    for worker in workers:
        until(lambda pid=worker.pid: f"dropped in {pid}" in shop.text(), shop.text, seconds=20)
        until(lambda pid=worker.pid: private_bytes(pid) < 100 << 20, "the cache to be gone")


def test_a_worker_that_forks_from_nothing_loaded_is_trimmed_after_a_load(shop):
    shop.start(APPLICATION)
    for _ in range(8):
        shop.get("/expand")
    until(
        lambda: all(any(p.loaded for p in worker.packages) for worker in shop.workers) or shop.get("/expand"), "sympy"
    )
    for worker in shop.workers:
        assert shop.trim(worker)["skipped"] is None
    until(lambda: all(worker.trim_refused == "" for worker in shop.workers), "no trim to have been stopped")
