"""Applications that close descriptors which they have not opened, and whose own files then have the same numbers."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from mempressure.act.order_client import give_order
from mempressure.config.lock_file import LockFile
from mempressure.config.paths import socket_path
from mempressure.control.standalone import LOCK_NAME
from mempressure.errors import AgentUnreachableError
from mempressure.state import reader
from stack.engines import ROOT
from tests.support.waiting import until


@pytest.fixture
def environ(tmp_path, runtime_dir, state_dir):
    return os.environ | {
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(state_dir),
        "MEMPRESSURE_APP": "ledgers",
        "MEMPRESSURE_ACTUATOR": "127.0.0.1:9",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }


@pytest.fixture
def start(environ, tmp_path):
    """Start the sample; returns the pid of the process that serves, another than the one started where it detached."""
    started = []

    def start(how):
        with open(tmp_path / "output", "wb") as output:
            command = [sys.executable, "-m", "tests.support.programs.daemon_sample", how, str(tmp_path)]
            process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=output, stderr=output)
        started.append(process.pid)
        until((tmp_path / "started").exists, lambda: f"the files: {said(tmp_path)}", seconds=30)
        if how == "detach":
            assert process.wait(10) == 0
            started.append(int((tmp_path / "started").read_text()))
        processes.append(process)
        return started[-1]

    processes = []
    yield start
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for process in processes:
        process.wait(10)


def said(folder):
    """Return what the sample wrote to its standard output and error, before and after it became a daemon."""
    return "".join(path.read_text() for path in (folder / "output", folder / "error") if path.exists())


def leads(directory):
    lock = LockFile(directory / LOCK_NAME)
    try:
        return not lock.take()
    finally:
        lock.release()


@pytest.mark.parametrize("how", ["detach", "stay", "closerange"])
def test_the_agent_works_on_and_touches_no_file_that_has_its_numbers(start, tmp_path, runtime_dir, how):
    pid = start(how)
    directory = runtime_dir / str(os.geteuid())
    path = socket_path(directory, pid)

    def sampled():
        with contextlib.suppress(reader.StateError, FileNotFoundError):
            return reader.load(path.with_suffix(".state"), owner=os.geteuid()).sampled

    before = until(sampled, "its state")
    until(lambda: sampled() > before, "a new state")

    def answered():
        with contextlib.suppress(AgentUnreachableError):
            return give_order(path, {"id": "m", "op": "measure"}, timeout=20) == {"id": "m"}

    until(answered, "an answer")
    until(lambda: leads(directory), "it to lead again")
    (tmp_path / "finish").touch()
    until((tmp_path / "finished").exists, lambda: f"its end: {said(tmp_path)}", seconds=30)
    assert json.loads((tmp_path / "finished").read_text()) == {"lost": [], "closed": 0}
    until(lambda: not path.exists(), "the removal of its socket")
