import json
import os
from pathlib import Path

import pytest

from mempressure.control.monitor import MemoryMonitor
from mempressure.measure.cgroup import Cgroup
from mempressure.measure.memory_reading import MemoryReading
from mempressure.state.node import AppReading, NodeReading
from mempressure.state.records import PackageState
from mempressure_actuator.blackbox.box import KEPT, MAX_REPORTS, BlackBox
from mempressure_actuator.metrics import Metrics

MIB = 1 << 20


@pytest.fixture
def cgroup(tmp_path):
    path = tmp_path / "cgroup"
    path.mkdir()
    (path / "memory.oom_control").write_text("oom_kill 0\n")
    (path / "cgroup.procs").write_text("77\n78\n")
    return Cgroup(path, tmp_path, 1)


@pytest.fixture
def machine(proc):
    proc.write("vmstat", "oom_kill 0\n")
    proc.write("sys/kernel/random/boot_id", "boot-1\n")
    for pid, pages, name in ((77, 100, "python"), (78, 9000, "hog")):
        proc.write(f"{pid}/statm", f"1 {pages} 0 0 0 0 0\n")
        proc.write(f"{pid}/comm", f"{name}\n")
    return proc


@pytest.fixture
def box(machine, state_dir):
    """Make a black box, as the next start of the actuator does."""

    def make():
        made = Metrics(node="n1", leases=lambda: 0, queue_length=lambda: 0)
        make.metrics, make.entries = made, []
        options = {"leases": list, "history": lambda _: [], "record": make.entries.append, "metrics": made}
        return BlackBox(state_dir, proc=machine.path, **options)

    return make


@pytest.fixture
def look(make_worker, cgroup, tmp_path):
    monitor = MemoryMonitor()

    def looked(box, *, at=1e9, percent=95, alive=True, host=50):
        package = PackageState(
            name="pandas", mechanism="stop", source="process", timeout=1.0, loaded=1.0, memory_bytes=30 * MIB
        )
        workers = (make_worker(packages=[package], private_bytes=50.0 * MIB),)
        app = AppReading("shop", 0, tmp_path, workers, MemoryReading(100 * MIB, (100 - percent) * MIB))
        reading = NodeReading(at, MemoryReading(100 * MIB, (100 - host) * MIB), {"shop": app} if alive else {})
        box.look(reading, monitor.observe(reading), {cgroup: "shop"} if alive else {})

    return looked


def kill(cgroup, machine, count=1):
    (cgroup.directory / "memory.oom_control").write_text(f"oom_kill {count}\n")
    machine.write("vmstat", f"oom_kill {count}\n")


def reports(state_dir):
    return [json.loads(path.read_text()) for path in sorted((state_dir / "reports").glob("oom-*.json"))]


def test_a_kill_in_an_apps_cgroup_is_reported_at_the_next_look(box, look, cgroup, machine, state_dir, caplog):
    made = box()
    look(made)
    kill(cgroup, machine)
    look(made, at=1e9 + 1, alive=False)  # the app's last worker was killed
    (report,) = reports(state_dir)
    assert (report["scope"], report["app"], report["kills"]) == ("app", "shop", 1)
    assert report["held"]["apps"]["shop"]["workers"][0]["packages"] == {"pandas": 30 * MIB}
    assert [each["name"] for each in report["held"]["processes"][report["cgroup"]]] == ["hog", "python"]
    assert report["why"] == ["unload_packages was entered 1.0 s before, and no alert had arrived"]
    assert box.metrics.oom_kills.labels("app")._value.get() == 1
    assert box.metrics.oom_reports._value.get() == 1
    (entry,) = box.entries
    assert (entry.trigger, entry.outcome, entry.app, entry.usage_before) == ("oom_kill", "reported", "shop", 0.95)
    assert [skip.reason for skip in entry.skips] == report["why"]
    assert "OOM kill: scope=app app='shop' kills=1" in caplog.text
    look(made, at=1e9 + 2)
    assert len(reports(state_dir)) == 1


def test_a_kill_while_no_actuator_ran_is_reported_at_the_next_start(box, look, cgroup, machine, state_dir):
    look(box())
    kill(cgroup, machine)
    look(box(), at=1e9 + 5)
    (report,) = reports(state_dir)
    assert report["held"]["time"] == 1e9
    assert report["why"] == ["unload_packages was entered 5.0 s before, and no alert had arrived"]


def test_after_a_boot_nothing_is_taken_up(box, look, cgroup, machine, state_dir):
    look(box())
    machine.write("sys/kernel/random/boot_id", "boot-2\n")
    kill(cgroup, machine)
    look(box(), at=1e9 + 5)
    assert not (state_dir / "reports").exists()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"boot": "boot-1", "cgroups": 3}', "\x00"])
def test_what_was_kept_and_is_damaged_is_not_used(box, look, state_dir, text):
    (state_dir / KEPT).write_text(text)
    look(box())
    assert box.metrics.problems._value.get() == 1
    assert json.loads((state_dir / KEPT).read_text())["boot"] == "boot-1"


def test_a_kill_elsewhere_is_the_hosts(box, look, machine, state_dir):
    made = box()
    look(made, host=60)
    machine.write("vmstat", "oom_kill 2\n")
    look(made, at=1e9 + 1)
    (report,) = reports(state_dir)
    assert (report["scope"], report["app"], report["kills"]) == ("host", "", 2)


def test_a_kill_in_a_cgroup_that_is_not_looked_at_is_counted_only(box, look, machine, state_dir, caplog):
    made = box()
    look(made, host=59)
    machine.write("vmstat", "oom_kill 2\n")
    look(made, at=1e9 + 1)
    assert not (state_dir / "reports").exists()
    assert box.entries == []
    assert box.metrics.oom_kills.labels("other")._value.get() == 2
    assert "OOM kill in a cgroup that is not watched" in caplog.text


def test_reports_are_bounded_and_private(box, look, cgroup, machine, state_dir):
    made = box()
    for number in range(MAX_REPORTS + 5):
        look(made, at=1e9 + number)
        kill(cgroup, machine, number + 1)
    assert len(reports(state_dir)) == MAX_REPORTS
    assert reports(state_dir)[-1]["detected"] == 1e9 + MAX_REPORTS + 4
    assert (state_dir / "reports").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (state_dir / "reports").iterdir()} == {0o600}
    assert (state_dir / KEPT).stat().st_mode & 0o777 == 0o600


def test_if_nothing_can_be_written_the_loop_goes_on_and_that_is_logged_once(box, look, state_dir, monkeypatch, caplog):
    def refuse(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    made = box()
    for number in range(3):
        look(made, at=1e9 + number)
        made._written = 0.0
    assert caplog.text.count("black box not written") == 1
    assert box.metrics.store_errors._value.get() == 3
    assert Path(state_dir).exists()


def test_a_kill_is_logged_and_recorded_if_no_report_can_be_written(box, look, cgroup, machine, state_dir, caplog):
    (state_dir / "reports").write_text("in the way")
    made = box()
    look(made)
    kill(cgroup, machine)
    look(made, at=1e9 + 1)
    assert "OOM kill: scope=app app='shop' kills=1" in caplog.text
    assert "report=none, " in caplog.text
    assert [entry.outcome for entry in box.entries] == ["reported"]
    assert box.metrics.store_errors._value.get() == 1
    assert box.metrics.oom_reports._value.get() == 0
