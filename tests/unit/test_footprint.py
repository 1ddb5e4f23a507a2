"""What a worker loads of the library: a module that joins these sets costs every worker its memory."""

import json
import subprocess
import sys

import pytest

IDLE = {
    "mempressure",
    "mempressure.act",
    "mempressure.act.self_check",
    "mempressure.act.supervisors",
    "mempressure.act.supervisors.base",
    "mempressure.bootstrap",
    "mempressure.config",
    "mempressure.config.configuration",
    "mempressure.config.converters",
    "mempressure.config.paths",
    "mempressure.errors",
    "mempressure.forks",
    "mempressure.loader",
    "mempressure.mechanisms",
    "mempressure.measure",
    "mempressure.measure.cgroup",
    "mempressure.measure.descriptor",
    "mempressure.measure.pressure",
    "mempressure.measure.process",
    "mempressure.measure.reading",
    "mempressure.package_process",
    "mempressure.package_process.identity",
    "mempressure.record",
    "mempressure.state",
    "mempressure.state.files",
    "mempressure.state.liveness",
    "mempressure.state.records",
    "mempressure.worker",
    "mempressure.worker.agent",
    "mempressure.worker.managed",
    "mempressure.worker.order_socket",
    "mempressure.worker.sampler",
}
OF_A_PACKAGE = {
    "mempressure.packages",
    "mempressure.packages.declaration",
    "mempressure.packages.reservation",
    "mempressure.verdicts",
    "mempressure.verdicts.known",
    "mempressure.worker.declarations",
    "mempressure.worker.package_sampler",
    "mempressure.worker.registry",
}
OF_TRACKING = {
    "mempressure.decorators",
    "mempressure.packages.accessed_bit",
    "mempressure.packages.attribution",
    "mempressure.packages.deferred_import",
    "mempressure.packages.own_modules",
    "mempressure.packages.tracking",
}
OF_CALLBACKS = {
    "mempressure.act.callbacks",
    "mempressure.config.thresholds",
    "mempressure.decorators",
    "mempressure.log_once",
    "mempressure.units",
}
OF_BACKGROUND_WORK = {"mempressure.decorators", "mempressure.worker.background_work"}
OF_ISOLATION = {
    "mempressure.packages.installed",
    "mempressure.isolation.errors",
    "mempressure.decide",
    "mempressure.decide.backoff",
    "mempressure.isolation",
    "mempressure.isolation.calls",
    "mempressure.isolation.connection",
    "mempressure.isolation.counters",
    "mempressure.isolation.function",
    "mempressure.isolation.generation",
    "mempressure.isolation.membership",
    "mempressure.isolation.package",
    "mempressure.isolation.processes",
    "mempressure.isolation.results",
    "mempressure.isolation.spawner",
    "mempressure.isolation.starting",
    "mempressure.measure.descriptor",
    "mempressure.measure.growth",
    "mempressure.measure.trend",
    "mempressure.package_process.descendants",
    "mempressure.package_process.functions",
    "mempressure.package_process.interpreter",
    "mempressure.package_process.logs",
    "mempressure.protocol",
    "mempressure.protocol.addresses",
    "mempressure.protocol.files",
    "mempressure.protocol.frames",
    "mempressure.protocol.slots",
    "mempressure.worker.isolated_states",
}
OF_RESIDENTS = {
    "mempressure.act.trim",
    "mempressure.decide",
    "mempressure.decide.admission",
    "mempressure.decide.backoff",
    "mempressure.decorators",
    "mempressure.isolation",
    "mempressure.isolation.counters",
    "mempressure.isolation.errors",
    "mempressure.residents",
    "mempressure.residents.declaration",
    "mempressure.residents.load_cost",
    "mempressure.residents.reclaim",
    "mempressure.residents.resident",
    "mempressure.residents.unit",
    "mempressure.residents.upkeep",
    "mempressure.residents.warming",
}
HEAVY = {"argparse", "asyncio", "concurrent", "ctypes", "email", "multiprocessing", "psutil", "ssl"}
"""What none of it may bring along, the standard library's too."""
SCRIPT = """
import json, sys
from mempressure import get_lazy_loader
loader = get_lazy_loader()
{use}
assert loader._bootstrap.worker.sample(thorough=True) is not None
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
        ("loader.on_pressure('high')(lambda: None)", IDLE | OF_CALLBACKS),
        ("with loader.background_work('flusher'): assert 'inspect' not in sys.modules", IDLE | OF_BACKGROUND_WORK),
        ("loader.manage('sched'); import sched", IDLE | OF_A_PACKAGE | OF_TRACKING),
        (
            "import bisect; assert loader.isolated('sched')(bisect.bisect)([1, 2], 2) == 2",
            IDLE | OF_A_PACKAGE | OF_ISOLATION,
        ),
        ("assert loader.resident(name='model')(lambda: [1])() == [1]", IDLE | OF_A_PACKAGE | OF_RESIDENTS),
    ],
    ids=["idle", "callbacks", "background work", "tracking", "isolation", "residents"],
)
def test_a_worker_loads_no_more_than_it_uses(loaded, use, expected):
    modules = loaded(use)
    own = {name for name in modules if name.partition(".")[0] == "mempressure"}
    assert sorted(own - expected) == []
    assert sorted(expected - own) == []  # what is no longer loaded is to leave the list
    assert sorted(modules & HEAVY) == []
