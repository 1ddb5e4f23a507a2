"""A package process, or its worker, is killed at each step of its life: what the caller gets, what is left."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stack.engines import ROOT
from tests.support.programs.isolated_steps import LARGE_BYTES
from tests.support.waiting import until

STEPS = {
    "spawned": "ProcessStartError: .* was killed by SIGKILL .* while it started",
    "importing": "ProcessStartError: .* was killed by SIGKILL .* while it started",
    "idle": "4$",
    "sending": f"{LARGE_BYTES}$",
    "calling": "ProcessDiedError: .* was killed by SIGKILL .* during the call, whose effect is unknown",
    "answering": "ProcessDiedError: .* ended during the call, whose effect is unknown",
    "hook": "None$",
    "exit": "None$",
}
"""What the caller gets when the package process is killed there: what never ran is run in another."""


class Worker:
    """A worker that halts at a step."""

    def __init__(self, step, directory):
        self.step = step
        self.directory = directory
        halting = "from tests.support.programs import isolated_steps; isolated_steps.halt()"
        (directory / "halting_package.py").write_text(halting)
        (directory / "python").write_text(
            '#!/bin/sh\ntouch "$STEPS/at"\n'
            'while [ ! -e "$STEPS/go" ]; do sleep 0.05; done\n'
            f'exec {sys.executable} "$@"\n'
        )
        (directory / "python").chmod(0o755)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.programs.isolated_steps", step, str(directory)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def child(self):
        """Its package process's pid."""
        (child,) = psutil.Process(self.process.pid).children()
        return child.pid

    def reach(self):
        """Wait until it is at its step."""
        until((self.directory / "at").exists, f"step {self.step}")
        if self.step == "sending":
            until(lambda: waits_to_send(self.process.pid), "the worker to be sending")
        if self.step == "answering":
            os.kill(self.process.pid, signal.SIGSTOP)
            (self.directory / "go").touch()
            until(lambda: waits_to_send(self.child), "the package process to be sending")

    def outcome(self):
        (self.directory / "go").touch()
        if self.step == "answering":
            os.kill(self.process.pid, signal.SIGCONT)
        output, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return json.loads(output)


def waits_to_send(pid):
    """Whether a process' main thread waits in the kernel for room in a socket; for calls it waits at an epoll."""
    where = Path(f"/proc/{pid}/wchan").read_text()
    return any(name in where for name in ("sock_alloc_send", "do_poll", "poll_schedule", "do_sys_poll"))


@pytest.fixture
def worker(request, tmp_path, own_processes):
    worker = Worker(request.param, tmp_path)
    with worker.process:
        yield worker
        worker.process.kill()


every_step = pytest.mark.parametrize("worker", STEPS, indirect=True)


@every_step
def test_the_package_process_is_killed(worker):
    worker.reach()
    os.kill(worker.child, signal.SIGKILL)
    outcome = worker.outcome()
    assert re.match(STEPS[worker.step], outcome["became"], re.DOTALL)
    assert outcome["after"] == "9"
    assert outcome["problems"] == (worker.step in {"hook", "exit"})  # what was to be run was not, and is reported
    assert outcome["left"] == {"files": 0, "threads": 0, "children": 0}


@every_step
def test_the_worker_is_killed(worker):
    worker.reach()
    descriptor = os.pidfd_open(worker.child)
    try:
        worker.process.kill()
        if worker.step == "spawned":
            (worker.directory / "go").touch()  # what is no interpreter yet finds out for itself when it is one
        ended, _, _ = select.select([descriptor], [], [], 10 if worker.step == "spawned" else 1)
        assert ended, "the package process has outlived its worker"
    finally:
        os.close(descriptor)
