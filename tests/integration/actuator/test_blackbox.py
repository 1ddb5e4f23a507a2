"""A real OOM kill in a real memory cgroup, and the report on it."""

import json
import sys

from stack.engines import ROOT
from tests.support.waiting import until

MIB = 1 << 20
HOG = "held = []\nwhile True: held.append(bytearray(b'x') * (1 << 20))"


def test_after_a_kill_a_report_says_who_held_what_and_why(actuator, memory_cgroup, processes, tmp_path, cold_file):
    actuator.start()
    memory_cgroup.limit(200 * MIB)
    command = [
        sys.executable,
        "-m",
        "tests.support.programs.stalling_worker",
        str(cold_file),
        str(tmp_path / "begin"),
    ]
    environ = {
        "PYTHONPATH": str(ROOT),
        "MEMPRESSURE_APP": "shop",
        "MEMPRESSURE_RUNTIME_DIR": str(actuator.runtime),
    }
    worker = processes.start("worker", memory_cgroup.command(*command), environ=environ)
    worker.wait_until((tmp_path / "begin.ready").exists)
    seen = "mempressure_actuator_last_turn_timestamp_seconds"
    turn = actuator.metric(seen)
    until(lambda: actuator.metric(seen) > turn, "a look at the worker")
    processes.start("hog", memory_cgroup.command(sys.executable, "-c", HOG))
    until(lambda: memory_cgroup.kills, "the kernel to kill", seconds=20)
    folder = tmp_path / "state" / "reports"
    (path,) = until(lambda: list(folder.glob("oom-*-app-shop.json")), "the report", seconds=20)
    report = json.loads(path.read_text())
    assert (report["scope"], report["app"], report["kills"]) == ("app", "shop", memory_cgroup.kills)
    assert report["cgroup"] == str(memory_cgroup.path)
    (held,) = report["held"]["apps"]["shop"]["workers"]
    assert held["pid"] == worker.pid
    assert held["packages"]["pandas"] > 20 * MIB
    assert report["held"]["processes"][report["cgroup"]]
    assert report["why"]
    assert report["timeline"][-1]["what"] == "the kill was found"
    assert actuator.metric('mempressure_actuator_oom_kills_total{scope="app"}') == memory_cgroup.kills
    kept = until(lambda: [cycle for cycle in actuator.history() if cycle["trigger"] == "oom_kill"], "the entry")
    entry = kept[-1]
    assert (entry["app"], entry["outcome"]) == ("shop", "reported")
    assert [skip["reason"] for skip in entry["skips"]] == report["why"]
