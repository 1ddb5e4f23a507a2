"""A benchmark's application under gunicorn: how it is started, asked, ordered to unload, and measured from outside."""

import contextlib
import http.client
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from mempressure.act.executor import Executor, Outcome
from mempressure.act.order_client import give_order
from mempressure.config.paths import socket_path
from mempressure.decide.plan import Action, Target
from mempressure.errors import MempressureError
from mempressure.measure.process import private_bytes
from mempressure.state.node import NodeReading
from mempressure.state.node_reader import read_node
from mempressure.state.records import WorkerState
from stack.engines import ROOT
from stack.processes import Processes, free_port

APP = "benchmark"
LOGS = ROOT / "build" / "logs" / "bench"
START_SECONDS = 60.0
BYTECODE = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(ROOT / "build" / "bytecode")}
"""As where an application is deployed: what compiles its modules at each start keeps the memory and time for that."""
_SETTLED_BYTES = 32 << 10
_SETTLE_SECONDS = 3.0
_AGREEING = 3


class Service:
    """A running gunicorn and its workers' agents."""

    def __init__(self, *, pid: int, port: int, runtime: Path) -> None:
        self.pid = pid
        self.port = port
        self._runtime = runtime
        self._executor = Executor(self._read)
        self._numbers = itertools.count(1)

    def get(self, path: str) -> tuple[int, bytes]:
        """Make one request on a connection of its own; return status and body."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def answer(self, path: str) -> Any:
        """Make one request and return its JSON.

        Raises:
            RuntimeError: it failed.
        """
        status, body = self.get(path)
        if status != http.client.OK:
            raise RuntimeError(f"{path} answered {status}: {body!r:.500}")
        return json.loads(body)

    def workers(self) -> list[WorkerState]:
        """Return the workers that serve, as they last said."""
        app = self._read().apps.get(APP)
        return [worker for worker in app.workers if worker.serving] if app is not None else []

    def children(self) -> list[int]:
        """Return the process ids of gunicorn's workers, as the kernel knows them."""
        return [child.pid for child in psutil.Process(self.pid).children()]

    def private_bytes(self) -> int:
        """Return the private bytes of all processes together: gunicorn's arbiter, workers and package processes.

        Looked at until three looks in a row agree, for 3 s at most.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        looks: list[int] = []
        while len(looks) < _AGREEING or max(looks) - min(looks) > _SETTLED_BYTES:
            if time.monotonic() > deadline:
                break
            process = psutil.Process(self.pid)
            pids = [self.pid, *(child.pid for child in process.children(recursive=True))]
            with contextlib.suppress(ProcessLookupError):  # one of them has ended meanwhile: look again
                looks = [*looks, sum(private_bytes(pid) for pid in pids)][-_AGREEING:]
            time.sleep(0.1)
        return looks[-1]

    def open_things(self) -> tuple[int, int, int]:
        """Return how many processes there are, and how many files and how many sockets they hold open."""
        process = psutil.Process(self.pid)
        pids = [self.pid, *(child.pid for child in process.children(recursive=True))]
        links = [link for pid in pids for link in _open_links(pid)]
        sockets = sum(link.startswith("socket:") for link in links)
        return len(pids), len(links) - sockets, sockets

    def order(self, worker: int, operation: str, **content: Any) -> dict[str, Any]:
        """Give one order to a worker's agent and return its answer."""
        order = {"id": f"bench.{next(self._numbers)}", "op": operation, **content}
        return give_order(socket_path(self._runtime / str(os.geteuid()), worker), order, timeout=20)

    def recycle(self, worker: WorkerState) -> Outcome:
        """Have one worker replaced as the actuator has it done, however recently its packages were used."""
        packages = tuple(package.name for package in worker.packages if package.loaded)
        target = Target(worker, dict.fromkeys((package.name for package in worker.packages), 0.0))
        action = Action("recycle", self._read().apps[APP], packages, (target,), 0, "benchmark")
        return self._executor.carry_out(action, order_id=f"bench.{next(self._numbers)}")

    def stop(self, package: str) -> None:
        """Have the only worker end the process of a package, and wait until that is gone.

        Raises:
            RuntimeError: it did not.
        """
        (worker,) = self.workers()
        answer = self.order(worker.pid, "stop", package=package)
        if answer["skipped"] is not None:
            raise RuntimeError(f"{package} was not stopped: {answer['skipped']}")
        wait(lambda: not psutil.Process(worker.pid).children(), "the end of the package process")

    def replace_worker(self) -> None:
        """Have the only worker recycled, and wait until its successor is the only one.

        Raises:
            RuntimeError: it was not.
        """
        (worker,) = self.wait_for_workers(1)
        outcome = self.recycle(worker)
        if outcome.workers != 1:
            raise RuntimeError(f"the worker was not recycled: {outcome.skipped or outcome.errors}")
        self.wait_for_workers(1)

    def warm(self, *, requests: int = 20) -> None:
        """Make some requests, so that what any first request costs is paid."""
        for _ in range(requests):
            self.answer("/ping")

    def wait_for_workers(self, count: int) -> list[WorkerState]:
        """Return the serving workers once there are `count`, and no other."""
        wait(lambda: len(self.workers()) == count == len(self.children()), f"{count} serving workers")
        return self.workers()

    def _read(self) -> NodeReading:
        return read_node(self._runtime, on_problem=_refuse)


@contextlib.contextmanager
def serve(
    application: str = "benchmarks.application:application",
    *,
    options: Sequence[str] = ("--worker-class", "gthread", "--threads", "4"),
    workers: int = 1,
    environ: Mapping[str, str] | None = None,
    managed: bool = True,
) -> Iterator[Service]:
    """Run an application under gunicorn until the block ends, whatever happens in it.

    Args:
        application: as gunicorn names it.
        options: for gunicorn.
        workers: how many.
        environ: settings besides the benchmark's own.
        managed: the workers have agents, which are waited for.
    """
    directory = Path(tempfile.mkdtemp(prefix="mempressure-"))  # short: a Unix socket's path has 107 bytes at most
    port = free_port()
    settings = {
        "MEMPRESSURE_APP": APP,
        "MEMPRESSURE_RUNTIME_DIR": str(directory / "run"),
        "MEMPRESSURE_STATE_DIR": str(directory / "state"),
        "MEMPRESSURE_RECYCLE_MIN_LIFETIME": "0",
        "PYTHONPATH": str(ROOT),
        **BYTECODE,
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": str(ROOT / "build" / "matplotlib"),
    }
    command = [sys.executable, "-m", "gunicorn", application, "--chdir", str(ROOT), "--no-control-socket"]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", str(workers), "--timeout", "120", *options]
    try:
        with Processes(logs=LOGS, environ={**settings, **(environ or {})}) as processes:
            process = processes.start("gunicorn", command)
            service = Service(pid=process.pid, port=port, runtime=directory / "run")
            process.wait_until(lambda: _answers(service), seconds=START_SECONDS)
            if managed:
                process.wait_until(lambda: len(service.workers()) == workers, seconds=START_SECONDS)
            yield service
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def bytecode_environment() -> dict[str, str]:
    """Return this process' environment, with this project to import and compiled modules kept."""
    return {**os.environ, **BYTECODE, "PYTHONPATH": str(ROOT)}


def wait(condition: Callable[[], bool], what: str, *, seconds: float = START_SECONDS) -> None:
    """Wait until `condition` holds.

    Raises:
        RuntimeError: it does not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.02)


def _answers(service: Service) -> bool:
    try:
        return service.get("/ping")[0] == http.client.OK
    except OSError:
        return False


def _refuse(problem: MempressureError) -> None:
    raise RuntimeError(f"a worker's state cannot be read: {problem}")


def _open_links(pid: int) -> Iterator[str]:
    folder = Path(f"/proc/{pid}/fd")
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(folder / name)
