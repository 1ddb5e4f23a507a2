"""Nothing lost, nothing twice: the benchmarks' storm and nonsense, small; a disk that is full; a blind restart."""

import os
import subprocess
from contextlib import suppress

import pytest

from benchmarks.nonsense import nonsense
from benchmarks.storm import run_storm
from tests.support.builders.notifications import alert, heartbeat, notification
from tests.support.doubles.fake_worker import FakeWorker
from tests.support.servers.actuator_process import Actuator
from tests.support.waiting import until

WEBHOOK = "/webhook/alertmanager"


def test_a_storm_with_kills_loses_nothing_and_does_nothing_twice(tmp_path):
    storm = run_storm(webhooks=400, kills=3, connections=8, logs=tmp_path)
    assert storm.kills == 3
    assert (storm.lost, storm.gave_up, storm.unexpected, storm.errors) == (0, 0, 0, [])
    assert len(storm.acknowledged) > 200
    assert storm.unanswered > 0, "no kill interrupted a request"
    assert storm.orders >= 3
    assert storm.twice == 0
    assert storm.after_last_kill > 0, "what was stored is acted on"


def test_nonsense_is_refused_and_changes_nothing(tmp_path):
    handled, answered = nonsense(payloads=3000, requests=500, logs=tmp_path)
    assert set(handled.answers) == {"200", "400"}
    assert {"200", "400", "401", "404", "405"} < set(answered.answers)
    for each in (handled, answered):
        assert (each.of_server, each.errors, each.changed) == (0, 0, 0)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, on which nothing is yet."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system: needs root")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["/bin/mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "mempressure-test", place]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounts a file system: {mounted.stderr}")
    yield place
    subprocess.run(["/bin/umount", place], check=True)


def test_on_a_full_disk_pressure_is_relieved_all_the_same(small_disk, tmp_path):
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o755)
    actuator = Actuator(runtime, small_disk / "state", tmp_path / "log")
    worker = FakeWorker(runtime)
    try:
        worker.publish()
        worker.listen()
        actuator.start()
        assert actuator.request("POST", WEBHOOK, notification(heartbeat()))[0] == 202
        assert actuator.metric("mempressure_actuator_autonomous") == 0
        ballast = small_disk / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass

        def refused():
            return actuator.request("POST", WEBHOOK, notification(alert(app="till")))[0] == 503

        until(refused, "a full disk", seconds=20)
        until(lambda: worker.ordered("stop"), "the order, though no notification could be stored")
        assert actuator.metric("mempressure_actuator_autonomous") == 1
        assert 'reason="notifications cannot be stored"' in actuator.text() or "cannot be stored" in actuator.text()
        assert actuator.text().count("nothing can be stored") == 1
        ballast.unlink()
        assert actuator.request("POST", WEBHOOK, notification(heartbeat()))[0] == 202
        until(lambda: actuator.metric("mempressure_actuator_autonomous") == 0, "the alerts' lead")
        assert actuator.request("POST", WEBHOOK, notification(alert()))[0] == 202
    finally:
        actuator.close()
        worker.close()


def test_a_restart_does_not_make_it_wait_for_heartbeats_anew(tmp_path):
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o755)
    actuator = Actuator(runtime, tmp_path / "state", tmp_path / "log")
    try:
        actuator.start(MEMPRESSURE_HEARTBEAT_INTERVAL="0.1")
        assert actuator.request("POST", WEBHOOK, notification(heartbeat()))[0] == 202
        until(lambda: actuator.metric("mempressure_actuator_autonomous") == 1, "autonomy")
        actuator.close()
        actuator.start(MEMPRESSURE_HEARTBEAT_INTERVAL="0.1")
        first = until(lambda: actuator.metric("mempressure_actuator_last_turn_timestamp_seconds"), "the first turn")
        assert first > 0
        assert actuator.text().count("no heartbeat for 0.3 s") == 2
        assert "no heartbeat since the start" not in actuator.text()
    finally:
        actuator.close()
