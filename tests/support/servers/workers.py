"""A server under test, as its agents publish it."""

import os
from pathlib import Path

import pytest

from mempressure.act.executor import Executor
from mempressure.act.order_client import give_order
from mempressure.config.paths import socket_path
from mempressure.decide.plan import Action, Target
from mempressure.state.node_reader import read_node
from stack.engines import ROOT
from stack.system import SAMPLE_ENVIRONMENT


class Workers:
    """The workers of one app, read from their state files and ordered through their sockets.

    Args:
        runtime: the runtime directory.
        app: its name.
    """

    def __init__(self, runtime, app):
        self.runtime = Path(runtime)
        self.name = app

    def environ(self, **more):
        """Return what the server is to run with."""
        return {
            **SAMPLE_ENVIRONMENT,
            "MEMPRESSURE_APP": self.name,
            "MEMPRESSURE_RUNTIME_DIR": str(self.runtime),
            "MEMPRESSURE_STATE_DIR": str(self.runtime.with_name("state")),
            "PYTHONPATH": str(ROOT),
            **more,
        }

    def read(self):
        return read_node(self.runtime, on_problem=lambda problem: pytest.fail(str(problem)))

    @property
    def app(self):
        return self.read().apps.get(self.name)

    def all(self):
        app = self.app
        return list(app.workers) if app else []

    def serving(self):
        return [worker for worker in self.all() if worker.serving]

    def order(self, worker, **content):
        return give_order(socket_path(self.app.directory, worker.pid), content, timeout=20)

    def recycle(self, worker, *packages):
        """Recycle a worker however recently it worked and its packages were used; return the outcome."""
        action = Action("recycle", self.app, packages, (Target(worker, None),), 0, "test")
        return Executor(self.read).carry_out(action, order_id=f"r{worker.pid}")

    def children(self):
        """Return the process ids of the supervisor's children."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def files(self):
        """Return what the workers have left in the runtime directory, but for an empty directory of generations."""
        own = self.runtime / str(os.geteuid())
        left = [path for path in own.iterdir() if path.name != "processes"] if own.exists() else []
        return sorted([*left, *(path for path in (own / "processes").glob("*") if path.name != "lock")])


def holds(worker, *names):
    """Return whether a worker has all these packages loaded."""
    return set(names) <= {package.name for package in worker.packages if package.loaded}
