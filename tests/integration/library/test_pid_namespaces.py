"""Two containers of one user that share a runtime directory, each with a worker of pid 1."""

import os
import shutil
import subprocess
import sys

import pytest

from mempressure.act.order_client import give_order
from mempressure.config.paths import socket_path
from mempressure.state.node_reader import read_node
from stack.engines import ROOT
from stack.processes import Processes
from tests.support.waiting import until

WORKER = "from mempressure import get_lazy_loader; import time; get_lazy_loader(); time.sleep(600)"
UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture
def processes(tmp_path, runtime_dir):
    if not shutil.which("unshare") or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may make no PID namespace here; tests/unit/worker/test_agent.py imitates one")
    environ = {"MEMPRESSURE_APP": "shop", "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir), "PYTHONPATH": str(ROOT)}
    with Processes(logs=tmp_path / "logs", environ=environ) as processes:
        yield processes


def test_each_of_two_workers_of_one_pid_publishes_and_takes_orders(processes, runtime_dir):
    def workers():
        app = read_node(runtime_dir, on_problem=lambda problem: pytest.fail(str(problem))).apps.get("shop")
        return app.workers if app else ()

    for name in ("first", "second"):
        processes.start(name, [*UNSHARE, sys.executable, "-c", WORKER])
    first, second = until(lambda: len(workers()) == 2 and workers(), "both", seconds=60)
    assert (first.pid, second.pid) == (1, 1)
    assert first.pid_namespace != second.pid_namespace
    for worker in (first, second):
        path = socket_path(runtime_dir / str(os.geteuid()), worker.pid, namespace=worker.pid_namespace)
        assert give_order(path, {"id": "m", "op": "measure"}, timeout=20) == {"id": "m"}
        assert give_order(path, {"id": "r", "op": "recycle"}, timeout=20)["skipped"] == "no supervisor would replace it"
