"""A real application whose cache grows past every level: its callback comes at once, and the history says so."""

import os
import re
import subprocess
import sys

import pytest

from mempressure.cli import main
from stack.engines import ROOT
from tests.support.waiting import until


@pytest.fixture
def application(runtime_dir, tmp_path):
    """A process of the app "shop" with a budget of 200 MiB: a function that grows its cache, and one that reads it."""
    environ = os.environ | {
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_APP": "shop",
        "MEMPRESSURE_BUDGET": "200MiB",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    log = tmp_path / "application.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.programs.caching_process"],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env=environ,
            cwd=ROOT,
            text=True,
        )

    def grow(mib):
        process.stdin.write(f"{mib}\n")
        process.stdin.flush()

    yield grow, log.read_text
    process.stdin.close()
    process.wait(20)


def test_a_futile_trim_does_not_hold_up_the_callback_of_an_escalation(application, actuator, capsys):
    grow, text = application
    actuator.start(MEMPRESSURE_HEARTBEAT_INTERVAL="0.1")
    grow(152)  # 82 %: unloading begins, at a level for which the callback is not declared
    until(lambda: outcomes(actuator)[:1] == ["futile"], lambda: f"a futile cycle in {actuator.text()}", seconds=20)
    assert [action["mechanism"] for cycle in actuator.history() for action in cycle["actions"]] == ["trim"]
    assert "called" not in text()
    grow(30)  # 97 %
    until(lambda: "called" in text(), text, seconds=20)
    when = {words: float(time) for words, time in re.findall(r"(grown 30|called emergency) (\S+)", text())}
    assert when["called emergency"] - when["grown 30"] < 10, "as soon as it was measured, not once a minute"

    until(lambda: outcomes(actuator)[:1] == ["relieved"], lambda: f"relief in {actuator.history()}", seconds=20)
    (action,) = actuator.history()[0]["actions"]
    assert (action["mechanism"], action["result"], action["workers"]) == ("callbacks", "done", 1)
    assert action["reclaimed_bytes"] > 170 << 20
    (note,) = action["notes"]
    assert re.fullmatch(r"worker \d+: drop gave back 18\d\.\d MiB", note)
    reclaimed = actuator.metric('mempressure_actuator_reclaimed_bytes_total{mechanism="callbacks"}')
    assert reclaimed == action["reclaimed_bytes"]
    assert main(["history", "--actuator", f"http://{actuator.address}", "--mechanism", "callbacks"]) == 0
    assert note in capsys.readouterr().out


def outcomes(actuator):
    return [cycle["outcome"] for cycle in actuator.history() if cycle["outcome"] != "skipped"]
