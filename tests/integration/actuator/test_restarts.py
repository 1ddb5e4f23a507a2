"""What an actuator keeps, and finishes, when it is stopped, killed or started on a damaged or full disk."""

import json
import resource
import signal
import socket
import threading
import time
from functools import partial

from tests.support import waiting
from tests.support.builders.notifications import alert, notification
from tests.support.doubles.fake_worker import MIB
from tests.support.servers.actuator_process import DEADLINE

until = partial(waiting.until, seconds=DEADLINE)


def notify(actuator, *alerts):
    return actuator.request("POST", "/webhook/alertmanager", notification(*alerts))


def test_what_was_acknowledged_is_acted_on_after_a_crash(actuator, worker):
    actuator.start()
    assert notify(actuator, alert())[0] == 202
    assert actuator.stop(signal.SIGKILL) == -signal.SIGKILL
    worker.publish()
    worker.listen()
    actuator.start()
    until(lambda: worker.ordered("stop"), "the order after the crash")


def test_what_cannot_be_stored_is_not_acknowledged(actuator):
    actuator.start()
    assert notify(actuator, alert())[0] == 202
    limits = resource.prlimit(actuator.process.pid, resource.RLIMIT_FSIZE)
    size = (actuator.state_dir / "actuator.sqlite-wal").stat().st_size
    resource.prlimit(actuator.process.pid, resource.RLIMIT_FSIZE, (size, limits[1]))
    status, _, content = notify(actuator, alert(app="till"))
    assert (status, content["error"]["code"]) == (503, "not_stored")
    assert actuator.metric("mempressure_actuator_leases") == 1
    assert actuator.metric('mempressure_actuator_webhooks_total{result="failed"}') == 1
    # What the loop decides meanwhile cannot be recorded either.
    assert actuator.metric("mempressure_actuator_store_errors_total") >= 1
    resource.prlimit(actuator.process.pid, resource.RLIMIT_FSIZE, limits)
    assert notify(actuator, alert(app="till"))[0] == 202
    assert actuator.metric("mempressure_actuator_leases") == 2


def test_settings_that_a_full_disk_does_not_take_stay_as_they_were(actuator):
    actuator.start()
    path = "/api/packages/memory/pressure-thresholds"
    thresholds = {"warning": 0.5, "unload_packages": 0.7, "aggressive_unload": 0.8, "emergency": 0.97}
    assert actuator.request("POST", path, thresholds)[0] == 200
    stored = actuator.state_dir / "settings.json"
    before = stored.read_bytes()
    limits = resource.prlimit(actuator.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(actuator.process.pid, resource.RLIMIT_FSIZE, (10, limits[1]))
    status, _, content = actuator.request("POST", path, thresholds | {"emergency": 0.98})
    assert (status, content["error"]["code"]) == (503, "not_stored")
    assert "send it again later" in content["error"]["message"]
    assert stored.read_bytes() == before
    resource.prlimit(actuator.process.pid, resource.RLIMIT_FSIZE, limits)
    assert actuator.metric("mempressure_actuator_store_errors_total") >= 1
    assert actuator.request("POST", path, thresholds | {"emergency": 0.98})[0] == 200


def test_damaged_settings_are_said_counted_and_kept_aside(actuator):
    actuator.start()
    actuator.stop()
    stored = actuator.state_dir / "settings.json"
    stored.write_text('{"version": 1, "thresholds":')
    actuator.start()
    alerts = "/api/packages/memory/pressure-summary"
    assert actuator.request("GET", alerts)[2]["data"]["alerts_enabled"] is True  # the default
    assert actuator.text().count("settings file damaged, the defaults hold") == 1
    assert actuator.metric("mempressure_actuator_problems_total") == 1
    assert actuator.request("POST", "/api/packages/memory/pressure-alerts/false")[0] == 200
    assert stored.with_name("settings.json.damaged").read_text().startswith('{"version": 1')
    assert actuator.request("GET", alerts)[2]["data"]["alerts_enabled"] is False


def test_leases_and_settings_survive_a_restart(actuator):
    actuator.start()
    thresholds = {"warning": 0.5, "unload_packages": 0.7, "aggressive_unload": 0.8, "emergency": 0.97}
    assert actuator.request("POST", "/api/packages/memory/pressure-thresholds", thresholds)[0] == 200
    assert actuator.request("PUT", "/api/packages/pandas/preference", {"keep_loaded": True})[0] == 200
    assert actuator.request("POST", "/api/packages/memory/optimization-suggestions/false")[0] == 200
    notify(actuator, alert())
    assert actuator.stop() == 0
    actuator.start()
    assert actuator.metric("mempressure_actuator_leases") == 1
    summary = actuator.request("GET", "/api/packages/memory/pressure-summary")[2]["data"]
    assert summary["suggestions_enabled"] is False
    settings = json.loads((actuator.state_dir / "settings.json").read_text())
    assert settings["thresholds"] == thresholds
    assert settings["preferences"] == [{"app": "", "package": "pandas", "keep_loaded": True}]


def test_sigterm_lets_a_running_request_finish_and_begins_no_other_act(actuator, published):
    published.may_answer.clear()
    actuator.start()
    answers = []
    request = threading.Thread(
        target=lambda: answers.append(actuator.request("POST", "/api/packages/pandas/unload", {"app": "shop"}))
    )
    request.start()
    until(lambda: published.ordered("stop"), "the order")
    assert notify(actuator, alert())[0] == 202  # would be acted on next
    actuator.process.send_signal(signal.SIGTERM)
    until(lambda: refused(actuator.address), "the end of listening")
    signalled = time.monotonic()
    until(lambda: time.monotonic() > signalled + 0.5, "a request that takes its time")
    published.may_answer.set()
    request.join(DEADLINE)
    assert actuator.process.wait(DEADLINE) == 0
    status, _, content = answers[0]
    assert status == 200
    assert content["data"]["results"][0]["reclaimed_bytes"] == 30 * MIB
    assert [order["op"] for order in published.orders if order["op"] != "measure"] == ["stop"]
    assert actuator.text().rstrip().endswith("msg=stopped")
    assert not (actuator.state_dir / "actuator.sqlite-wal").exists()


def refused(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=DEADLINE).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_in_a_cycle_ends_it_between_two_acts(actuator, published):
    published.may_answer.clear()
    actuator.start()
    notify(actuator, alert())
    until(lambda: published.ordered("trim"), "the first order")
    actuator.process.send_signal(signal.SIGTERM)
    until(lambda: "msg=stopping" in actuator.text(), "the signal")
    published.may_answer.set()
    assert actuator.process.wait(DEADLINE) == 0
    assert published.ordered("stop") == []
