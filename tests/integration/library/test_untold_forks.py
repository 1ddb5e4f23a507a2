"""Forks that Python is not told of: the child begins anew at its next use of the library."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from mempressure.act.order_client import give_order
from mempressure.config.paths import socket_path
from mempressure.errors import AgentUnreachableError
from mempressure.state.node_reader import read_node
from stack.engines import ROOT
from tests.support.waiting import until


@pytest.fixture
def start(tmp_path, runtime_dir, state_dir):
    """Start the sample; returns the process ids of parent and child."""
    environ = os.environ | {
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(state_dir),
        "MEMPRESSURE_APP": "forks",
        "MEMPRESSURE_ACTUATOR": "127.0.0.1:9",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    processes = []

    def start(use):
        log = tmp_path / "output"
        with log.open("wb") as output:
            command = [sys.executable, "-m", "tests.support.programs.untold_fork_sample", use, str(tmp_path)]
            process = subprocess.Popen(
                command, env=environ, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )
        processes.append(process)
        used = tmp_path / "used"
        until(used.exists, lambda: f"the child's use, in {log.read_text()}", seconds=30)
        return process.pid, int(used.read_text())

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.mark.parametrize("use", ["loader", "packages", "work", "import", "module", "resident"])
def test_the_child_has_an_agent_of_its_own_from_its_next_use_on(start, runtime_dir, use):
    parent, child = start(use)
    directory = runtime_dir / str(os.geteuid())

    def answers(pid):
        with contextlib.suppress(AgentUnreachableError):
            return give_order(socket_path(directory, pid), {"id": "m", "op": "measure"}, timeout=20) == {"id": "m"}

    until(lambda: answers(child), "an answer of the child", seconds=20)
    assert answers(parent)
    assert (directory / f"{child}.state").exists()
    assert (directory / f"{parent}.state").exists()


def test_what_a_resident_was_loaded_with_before_the_fork_is_the_parents(start, runtime_dir):
    _, child = start("resident")

    def source():
        app = read_node(runtime_dir, on_problem=lambda problem: None).apps.get("forks")
        workers = [] if app is None else [worker for worker in app.workers if worker.pid == child]
        return next((each.source for worker in workers for each in worker.packages if each.name == "table"), "")

    assert until(source, "the child's state", seconds=20) == "parent"
