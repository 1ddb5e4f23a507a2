"""A real worker in a real memory cgroup stalls, and only the kernel reports it to the actuator."""

import os
import sys

from mempressure.config.configuration import load_configuration
from mempressure_actuator.actuator import Actuator as InProcess
from stack.engines import ROOT
from tests.support.waiting import until

MIB = 1 << 20
LIMIT = 256 * MIB


def _stopped(cycle):
    return [action for action in cycle["actions"] if action["mechanism"] == "stop"]


def test_a_stall_at_emergency_starts_a_cycle_without_any_alert(actuator, memory_cgroup, processes, tmp_path, cold_file):
    actuator.start()  # its heartbeat is an hour away, so that it is not autonomous
    memory_cgroup.limit(LIMIT)
    begin = tmp_path / "begin"
    command = [sys.executable, "-m", "tests.support.programs.stalling_worker", str(cold_file), str(begin)]
    environ = {
        "PYTHONPATH": str(ROOT),
        "MEMPRESSURE_APP": "shop",
        "MEMPRESSURE_RUNTIME_DIR": str(actuator.runtime),
        "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT": "1",
    }
    processes.start("worker", memory_cgroup.command(*command), environ=environ).wait_until(
        (tmp_path / "begin.ready").exists
    )
    assert actuator.metric('mempressure_actuator_feature_supported{feature="app_reflex"}') == 1
    until(lambda: actuator.metric("mempressure_actuator_reflex_triggers") >= 2, "the cgroup to be watched")
    # Between emergency and the limit, where the file's cache does not fit.
    begin.with_suffix(".new").write_text(str((int(0.93 * LIMIT) - memory_cgroup.used) // MIB))
    os.replace(begin.with_suffix(".new"), begin)
    # The first cycle may find pandas used too recently; what it leaves, the next stall's takes.
    cycle = until(lambda: next(filter(_stopped, actuator.history()), None), "the package to be stopped", seconds=30)
    assert {each["trigger"] for each in actuator.history()} == {"reflex"}
    assert (cycle["app"], cycle["alert_key"]) == ("shop", "")
    assert cycle["usage_before"] >= 0.85
    (stopped,) = _stopped(cycle)
    assert (stopped["packages"], stopped["result"]) == (["pandas"], "done")
    assert actuator.metric('mempressure_actuator_stalls_total{source="cgroup_v1"}') >= 1
    assert cycle["outcome"] in ("relieved", "effective")  # the file's cache may count as in use
    assert actuator.metric("mempressure_actuator_autonomous") == 0
    assert memory_cgroup.kills == 0


def feature(actuator, name):
    return actuator.metrics.reflex_supported.labels(name)._value.get()


def test_where_the_kernel_offers_no_trigger_a_metric_says_so(proc, runtime_dir, state_dir, caplog):
    environ = {"MEMPRESSURE_RUNTIME_DIR": str(runtime_dir), "MEMPRESSURE_STATE_DIR": str(state_dir)}
    proc.mountinfo()
    actuator = InProcess(load_configuration(environ=environ), proc=proc.path)
    actuator.start()
    until(lambda: "no reflex: source=host" in caplog.text, "the reason in the log")
    assert (feature(actuator, "host_reflex"), feature(actuator, "app_reflex")) == (0, 0)
    actuator.stop()
    assert caplog.text.count("no reflex") == 1
    assert "is not a file of the kernel" in caplog.text
