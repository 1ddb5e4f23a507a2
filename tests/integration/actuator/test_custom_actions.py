"""Custom actions of a real actuator, whose one worker is this process."""

import json
import sys
from functools import partial

import pytest

from tests.support import waiting
from tests.support.builders.notifications import alert, notification
from tests.support.doubles.fake_worker import FakeWorker
from tests.support.servers.actuator_process import DEADLINE

until = partial(waiting.until, seconds=DEADLINE)
FILE = """
actions:
  - name: note
    level: high
    cooldown: 3600
    command: [{python}, -c, "import sys; open('{out}', 'a').write(sys.stdin.read() + chr(10))"]
  - name: hang
    level: emergency
    timeout: 1
    command: [{python}, -c, "import time; time.sleep(60)"]
  - name: never
    level: emergency
    signal: {{pid_file: {out}.pid, name: TERM}}
"""


@pytest.fixture
def worker(runtime_dir):
    """A worker at 92 %, which nothing relieves: its package is in use."""
    made = FakeWorker(runtime_dir, active_calls=1.0)
    made.publish()
    made.listen()
    yield made
    made.close()


@pytest.fixture
def actions(tmp_path):
    path = tmp_path / "actions.yml"
    path.write_text(FILE.format(python=sys.executable, out=tmp_path / "out"))
    path.chmod(0o600)
    return str(path)


def runs(actuator):
    """Return the runs that are recorded, by name."""
    cycles = [cycle for cycle in actuator.history() if cycle["strategy"] == "custom"]
    return {cycle["actions"][0]["packages"][0]: cycle for cycle in cycles}


def notify(actuator):
    # What the labels hold is data: never part of a command.
    assert actuator.request("POST", "/webhook/alertmanager", notification(alert(pod="$(touch /tmp/x)")))[0] == 202


def test_they_run_at_their_level_by_what_is_measured_and_are_recorded(actuator, worker, actions, tmp_path):
    actuator.start(f"--actions.file={actions}")
    notify(actuator)
    found = until(lambda: len(runs(actuator)) == 3 and runs(actuator), "all three in the history")
    done, hanging, refused = found["note"]["actions"][0], found["hang"]["actions"][0], found["never"]["actions"][0]
    assert (done["result"], done["mechanism"], done["reason"]) == (
        "done",
        "custom",
        "command at level emergency: exit status 0",
    )
    assert (hanging["result"], hanging["errors"]) == ("failed", ["killed with its process group after 1 s"])
    assert 1 <= hanging["duration_seconds"] < 5
    assert (refused["result"], refused["errors"]) == ("failed", [f"{tmp_path / 'out'}.pid: No such file or directory"])
    assert (found["note"]["trigger"], found["note"]["alert_key"]) == ("webhook", "0123456789abcdef")
    assert found["note"]["usage_before"] == pytest.approx(0.92)
    (payload,) = (tmp_path / "out").read_text().splitlines()
    assert json.loads(payload)["alert"]["labels"] == {"node": "n1", "scope": "app", "app": "shop", "level": "emergency"}
    assert (json.loads(payload)["level"], json.loads(payload)["usage"]) == ("emergency", 0.92)
    prefix = "mempressure_actuator_custom_actions_total"
    assert actuator.metric(f'{prefix}{{action="note",result="done"}}') == 1
    assert actuator.metric(f'{prefix}{{action="hang",result="timeout"}}') == 1
    # The cooldown survives the actuator.
    actuator.stop()
    actuator.start(f"--actions.file={actions}")
    turn = actuator.metric("mempressure_actuator_last_turn_timestamp_seconds")
    notify(actuator)
    until(lambda: actuator.metric("mempressure_actuator_last_turn_timestamp_seconds") > turn + 1, "two more turns")
    assert actuator.metric(f'{prefix}{{action="note",result="done"}}') == 0


def test_an_alert_alone_starts_nothing_and_a_dry_run_records_only(actuator, worker, actions, tmp_path):
    worker.state.proportional_bytes = 0.0  # relieved since the alert was sent
    worker.publish()
    actuator.start(f"--actions.file={actions}", MEMPRESSURE_DRY_RUN="custom")
    turn = actuator.metric("mempressure_actuator_last_turn_timestamp_seconds")
    notify(actuator)
    until(lambda: actuator.metric("mempressure_actuator_last_turn_timestamp_seconds") > turn + 1, "two more turns")
    assert runs(actuator) == {}
    worker.state.proportional_bytes = 86.0 * (1 << 20)  # high: one of the three
    worker.publish()
    found = until(lambda: runs(actuator), "the run in the history")
    assert [(name, cycle["outcome"]) for name, cycle in found.items()] == [("note", "dry_run")]
    assert not (tmp_path / "out").exists()


def test_the_configuration_can_be_checked_without_starting(actuator, actions, tmp_path, runtime_dir):
    checked = actuator.run("--check-config", f"--actions.file={actions}")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "custom actions note, hang, never" in checked.stdout
    assert not (tmp_path / "state").exists()
    (tmp_path / "actions.yml").chmod(0o666)
    checked = actuator.run("--check-config", f"--actions.file={actions}")
    assert checked.returncode == 2
    assert "actions.yml can be written to by others (mode 0666); chmod go-w" in checked.stderr
