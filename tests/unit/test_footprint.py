"""What a worker loads of the library: a module that joins these sets costs every worker its memory."""

import json
import subprocess
import sys

import pytest

IDLE = {
    "mempressure",
    "mempressure.accessed",
    "mempressure.agent",
    "mempressure.cgroup",
    "mempressure.configuration",
    "mempressure.conversions",
    "mempressure.declaration",
    "mempressure.directories",
    "mempressure.draining",
    "mempressure.errors",
    "mempressure.features",
    "mempressure.liveness",
    "mempressure.loader",
    "mempressure.memory",
    "mempressure.module_class",
    "mempressure.order_socket",
    "mempressure.packages",
    "mempressure.process",
    "mempressure.sampling",
    "mempressure.state",
    "mempressure.supervisors",
    "mempressure.supervisors.base",
    "mempressure.supervisors.neighbours",
    "mempressure.threads",
    "mempressure.worker",
}
OF_A_PACKAGE = {"mempressure.backoff", "mempressure.known_verdicts", "mempressure.reservation"}
OF_TRACKING = {
    "mempressure.attribution",
    "mempressure.importing",
    "mempressure.references",
    "mempressure.tracking",
}
OF_ISOLATION = {
    "mempressure.calls",
    "mempressure.frames",
    "mempressure.growth",
    "mempressure.host",
    "mempressure.host_keeper",
    "mempressure.isolated_package",
    "mempressure.isolation",
    "mempressure.trend",
}
HEAVY = {"argparse", "asyncio", "concurrent", "ctypes", "email", "multiprocessing", "psutil", "ssl"}
"""What none of it may bring along, the standard library's too."""
SCRIPT = """
import json, sys
from mempressure import get_lazy_loader
loader = get_lazy_loader()
{use}
assert loader._threads.worker.sample(thorough=True) is not None
print(json.dumps(list(sys.modules)))
loader.close()
"""


@pytest.fixture
def loaded(runtime_dir, tmp_path, monkeypatch):
    """A function that returns the names of the modules in a new worker that has done what it is given."""
    monkeypatch.setenv("MEMPRESSURE_RUNTIME_DIR", str(runtime_dir))
    monkeypatch.setenv("MEMPRESSURE_CACHE_DIR", str(tmp_path))  # own verdicts would be looked up, at a cost

    def loaded(use):
        script = SCRIPT.format(use=use)
        answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
        return set(json.loads(answer.stdout))

    return loaded


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("", IDLE),
        ("loader.manage('sched'); import sched", IDLE | OF_A_PACKAGE | OF_TRACKING),
        (
            "import bisect; assert loader.isolated('sched')(bisect.bisect)([1, 2], 2) == 2",
            IDLE | OF_A_PACKAGE | OF_ISOLATION,
        ),
    ],
    ids=["idle", "tracking", "isolation"],
)
def test_a_worker_loads_no_more_than_it_uses(loaded, use, expected):
    modules = loaded(use)
    own = {name for name in modules if name.partition(".")[0] == "mempressure"}
    assert sorted(own - expected) == []
    assert sorted(expected - own) == []  # what is no longer loaded is to leave the list
    assert sorted(modules & HEAVY) == []
