"""The real process, with a fake agent: a socket and a state file of a worker that is this test's own process."""

import http.client
import json
import re
import socket
import threading
import time
from contextlib import closing
from functools import partial

import pytest

from mempressure.config.configuration import DRY_RUN_CHOICES
from tests.support import waiting
from tests.support.builders.notifications import alert, heartbeat, notification
from tests.support.doubles.fake_worker import MIB
from tests.support.servers.actuator_process import DEADLINE

until = partial(waiting.until, seconds=DEADLINE)


def notify(actuator, *alerts):
    return actuator.request("POST", "/webhook/alertmanager", notification(*alerts))


def test_a_notification_has_the_agent_ordered_and_everything_recorded(actuator, published):
    actuator.start()
    status, _, content = notify(actuator, alert())
    assert status == 202
    assert content["data"]["alerts"]["accepted"] == 1
    (cycle,) = until(actuator.history, "the cycle in the history")
    (order,) = published.ordered("stop")
    assert order["package"] == "pandas"
    assert order["idle_for"] == {"pandas": 30.0}
    assert order["id"].startswith(cycle["id"])
    assert (cycle["scope"], cycle["app"], cycle["trigger"], cycle["outcome"]) == ("app", "shop", "webhook", "relieved")
    assert (cycle["alert_key"], cycle["alert_level"]) == ("0123456789abcdef", "emergency")
    assert cycle["usage_before"] == pytest.approx(0.92)
    assert cycle["usage_after"] == pytest.approx(0.62)
    assert [(a["mechanism"], a["result"], a["reclaimed_bytes"]) for a in cycle["actions"]] == [
        ("trim", "done", 0),
        ("stop", "done", 30 * MIB),
    ]
    prefix = "mempressure_actuator_"
    assert actuator.metric(prefix + 'webhooks_total{result="accepted"}') == 1
    assert actuator.metric(prefix + 'alerts_total{result="accepted"}') == 1
    assert actuator.metric(prefix + 'actions_total{mechanism="stop",result="done"}') == 1
    assert actuator.metric(prefix + 'reclaimed_bytes_total{mechanism="stop"}') == 30 * MIB
    assert actuator.metric(prefix + 'cycles_total{outcome="relieved",trigger="webhook"}') == 1
    assert actuator.metric(prefix + 'action_duration_seconds_count{mechanism="stop"}') == 1
    assert actuator.metric(prefix + "reaction_duration_seconds_count") == 1
    assert actuator.metric(prefix + "reaction_duration_seconds_sum") < 2
    assert actuator.metric(prefix + "leases") == 1
    assert actuator.metric(prefix + "autonomous") == 0
    assert actuator.metric(prefix + "loop_errors_total") == 0
    # No worker was recycled, so nothing is counted here that the exporter counts.
    assert "mempressure_package_unloads_total{" not in actuator.request("GET", "/metrics")[2]


def test_a_resolved_alert_ends_the_lease(actuator):
    actuator.start()
    notify(actuator, alert())
    assert actuator.metric("mempressure_actuator_leases") == 1
    assert notify(actuator, alert(status="resolved", starts_at="2025-01-01T00:00:00Z"))[0] == 202
    assert actuator.metric("mempressure_actuator_leases") == 1
    assert notify(actuator, alert(status="resolved"))[0] == 202
    assert actuator.metric("mempressure_actuator_leases") == 0


@pytest.mark.parametrize("token", [None, "wrong", "x" * 43])
def test_without_the_token_nothing_happens(actuator, published, token):
    actuator.start()
    status, headers, content = actuator.request("POST", "/webhook/alertmanager", notification(alert()), token=token)
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Bearer")
    assert content["error"]["code"] == "unauthorized"
    assert actuator.metric("mempressure_actuator_leases") == 0
    assert actuator.metric('mempressure_actuator_webhooks_total{result="unauthorized"}') == 1
    assert published.ordered("stop") == []


def test_another_scheme_is_no_token(actuator):
    actuator.start()
    headers = {"Authorization": f"Basic {actuator.token()}"}
    assert actuator.request("POST", "/api/packages/memory/gc", token=None, headers=headers)[0] == 401


def test_what_is_malformed_is_refused_and_counted(actuator):
    actuator.start()
    path, json_type = "/webhook/alertmanager", {"Content-Type": "application/json"}
    status, _, content = actuator.request("POST", path, b"{}", headers=json_type)
    assert (status, content["error"]["code"]) == (400, "invalid_notification")
    assert "version" in content["error"]["message"]
    status, _, content = notify(actuator, alert(level="high"))
    assert status == 400
    assert "level='high'; send emergency" in content["error"]["message"]
    for headers in ({}, {"Content-Type": "text/plain"}):
        assert actuator.request("POST", path, json.dumps(notification(alert())).encode(), headers=headers)[0] == 415
    status, _, content = actuator.request("POST", path, b" " * (MIB + 1), headers=json_type)
    assert (status, content["error"]["code"]) == (413, "too_large")
    chunks = {"Transfer-Encoding": "chunked", **json_type}
    whole = json.dumps(notification(alert())).encode()
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(whole), whole)
    with closing(http.client.HTTPConnection(actuator.address, timeout=DEADLINE)) as connection:
        connection.putrequest("POST", path)
        for name, value in (*chunks.items(), ("Authorization", f"Bearer {actuator.token()}")):
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(chunked)
        assert connection.getresponse().status == 202
    for result, count in (("invalid", 2), ("unsupported", 2), ("too_large", 1), ("accepted", 1)):
        assert actuator.metric(f'mempressure_actuator_webhooks_total{{result="{result}"}}') == count


def test_a_request_that_was_broken_off_is_none(actuator, published):
    actuator.start()
    head = (
        f"POST /api/packages/pandas/unload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {actuator.token()}\r\n"
    )
    head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    host, port = actuator.address.split(":")
    with closing(socket.create_connection((host, int(port)), timeout=DEADLINE)) as connection:
        connection.sendall(head.encode())
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert actuator.history() == []
    assert published.ordered("stop") == []


def test_alerts_of_another_node_are_ignored_with_a_count(actuator, published):
    actuator.start()
    status, _, content = notify(actuator, alert(node="n2"), alert(node="n3"))
    assert (status, content["data"]["alerts"]["other_node"]) == (200, 2)
    assert actuator.metric('mempressure_actuator_alerts_total{result="other_node"}') == 2
    assert actuator.metric('mempressure_actuator_webhooks_total{result="ignored"}') == 1
    assert actuator.metric("mempressure_actuator_leases") == 0
    assert notify(actuator, alert(node="n2"), alert())[0] == 202
    until(lambda: published.ordered("stop"), "the order")


def test_a_worker_that_does_not_answer_is_a_recorded_failure(actuator, worker):
    worker.publish()  # alive, and without a socket
    actuator.start()
    assert notify(actuator, alert())[0] == 202
    (cycle,) = until(actuator.history, "the cycle in the history")
    assert [action["result"] for action in cycle["actions"]] == ["failed", "failed"]
    assert "No such file" in cycle["actions"][1]["errors"][0]
    assert actuator.metric('mempressure_actuator_actions_total{mechanism="stop",result="failed"}') == 1
    assert actuator.request("GET", "/-/ready")[0] == 200


def test_an_invalid_answer_of_a_worker_does_not_stop_the_others(actuator, published):
    published.answers = {"trim": {"reclaimed_bytes": "much"}, "stop": {"reclaimed_bytes": -5}}
    actuator.start()
    notify(actuator, alert())
    (cycle,) = until(actuator.history, "the cycle in the history")
    assert [action["result"] for action in cycle["actions"]] == ["failed", "failed"]
    assert actuator.metric("mempressure_actuator_loop_errors_total") == 0


@pytest.mark.parametrize("path", ["/-/healthy", "/metrics", "/", "/api/packages"])
def test_head_is_answered_as_get_without_the_body(actuator, path):
    actuator.start()
    with closing(http.client.HTTPConnection(actuator.address, timeout=10)) as connection:
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")


def test_the_log_says_when_pressure_began_and_ended(actuator, published):
    actuator.start("--log.format=json")
    notify(actuator, alert())
    until(lambda: "pressure ended" in actuator.text(), "the end of the pressure")
    events = [json.loads(line) for line in actuator.text().splitlines()]
    told = [event["msg"] for event in events if event["msg"].startswith("pressure ") and "'shop'" in event["msg"]]
    assert told[0] == "pressure began: scope=app app='shop' usage=0.9200"
    assert re.fullmatch(r"pressure ended: scope=app app='shop' usage=0\.6200 after_seconds=[\d.]+", told[1])
    assert len(told) == 2
    assert {"time", "level", "logger", "msg"} <= set(events[0])


def test_without_heartbeats_it_is_autonomous_until_they_return(actuator, published):
    actuator.start(MEMPRESSURE_HEARTBEAT_INTERVAL="0.2")
    until(lambda: actuator.metric("mempressure_actuator_autonomous") == 1, "autonomy")
    until(lambda: published.ordered("stop"), "the order")
    (cycle,) = until(lambda: [c for c in actuator.history() if c["scope"] == "app"], "the cycle")
    assert cycle["trigger"] == "autonomous"
    assert cycle["pressure_since"] > 0
    assert "autonomous, the thresholds are evaluated here" in actuator.text()

    def handed_back():
        assert notify(actuator, heartbeat())[0] == 202
        return actuator.metric("mempressure_actuator_autonomous") == 0

    until(handed_back, "the alerts' lead")
    assert actuator.metric("mempressure_actuator_last_heartbeat_timestamp_seconds") == pytest.approx(
        time.time(), abs=30
    )
    assert actuator.metric("mempressure_actuator_leases") == 0
    assert "no longer autonomous" in actuator.text()


def test_turning_alerts_off_quiets_people_not_the_unloading(actuator, published):
    actuator.start()
    notify(actuator, heartbeat())
    assert actuator.metric("mempressure_actuator_autonomous") == 0
    assert published.ordered("stop") == []
    assert actuator.request("POST", "/api/packages/memory/pressure-alerts/false")[0] == 200
    until(lambda: published.ordered("stop"), "the order")
    assert actuator.metric("mempressure_actuator_autonomous") == 1
    assert actuator.request("POST", "/api/packages/memory/pressure-alerts/true")[0] == 200
    until(lambda: actuator.metric("mempressure_actuator_autonomous") == 0, "the alerts' lead")


def test_a_runtime_directory_open_to_others_is_said_once_and_the_host_goes_on(actuator, published):
    actuator.runtime.chmod(0o777)
    actuator.start(MEMPRESSURE_HEARTBEAT_INTERVAL="0.1")
    until(lambda: actuator.metric("mempressure_actuator_problems_total") >= 3, "several looks")
    told = [line for line in actuator.text().splitlines() if "runtime directory not used" in line]
    assert len(told) == 1
    assert "level=error" in told[0]
    assert "chmod go-w" in told[0]
    assert actuator.request("GET", "/api/packages/memory/system-info")[2]["data"]["total"] > 0
    assert actuator.request("GET", "/api/packages")[2]["data"]["apps"] == []
    assert published.orders == []
    actuator.runtime.chmod(0o755)
    until(lambda: published.ordered("stop"), "the order, once mended")


def test_a_dry_run_decides_and_records_and_acts_not(actuator, published):
    actuator.start("--dry-run")
    notify(actuator, alert())
    (cycle,) = until(actuator.history, "the cycle in the history")
    assert cycle["outcome"] == "dry_run"
    assert [(a["mechanism"], a["result"], a["skipped"], a["expected_bytes"]) for a in cycle["actions"]] == [
        ("trim", "dry_run", ["dry run"], 0),
        ("stop", "dry_run", ["dry run"], 30 * MIB),
    ]
    status, _, content = actuator.request("POST", "/api/packages/pandas/unload")
    assert status == 200
    assert content["data"]["results"][0]["skipped_reason"] == "dry run"
    assert {order["op"] for order in published.orders} == {"measure"}
    for mechanism in DRY_RUN_CHOICES:
        assert actuator.metric(f'mempressure_actuator_dry_run{{mechanism="{mechanism}"}}') == 1
    assert actuator.metric('mempressure_actuator_actions_total{mechanism="stop",result="dry_run"}') == 2
    assert actuator.metric('mempressure_actuator_dry_run_bytes_total{mechanism="stop"}') == 60 * MIB
    assert actuator.history()[0]["outcome"] == "dry_run"


def test_a_dry_run_of_one_mechanism_leaves_the_others_to_act(actuator, published):
    actuator.start(MEMPRESSURE_DRY_RUN="trim")
    notify(actuator, alert())
    (cycle,) = until(actuator.history, "the cycle in the history")
    assert [(a["mechanism"], a["result"]) for a in cycle["actions"]] == [("trim", "dry_run"), ("stop", "done")]
    assert cycle["outcome"] == "relieved"
    assert published.ordered("trim") == []


def test_a_threshold_below_the_floor_is_refused_with_the_reason(actuator):
    actuator.start(MEMPRESSURE_THRESHOLD_FLOOR="0.55")
    low = {"warning": 0.5, "unload_packages": 0.7, "aggressive_unload": 0.8, "emergency": 0.97}
    path = "/api/packages/memory/pressure-thresholds"
    status, _, content = actuator.request("POST", path, low)
    assert (status, content["error"]["code"]) == (400, "bad_request")
    assert "warning=0.5 is below the floor 0.55" in content["error"]["message"]
    assert actuator.request("GET", "/api/packages/memory/settings")[2]["data"]["thresholds"]["warning"] == 0.6
    assert actuator.metric('mempressure_actuator_brakes_total{brake="threshold_floor"}') == 1
    assert actuator.request("POST", path, low | {"warning": 0.55})[0] == 200


def test_an_unload_through_the_api_waits_for_the_cycle(actuator, published):
    published.may_answer.clear()
    actuator.start()
    notify(actuator, alert())
    until(lambda: published.ordered("trim"), "the cycle's first order")
    answers = []
    request = threading.Thread(target=lambda: answers.append(actuator.request("POST", "/api/packages/pandas/unload")))
    request.start()
    assert actuator.request("GET", "/-/healthy")[0] == 200
    assert published.ordered("stop") == []
    published.may_answer.set()
    request.join(DEADLINE)
    # The cycle's stop came first, so nothing was left to do.
    assert answers[0][2]["data"]["results"][0]["skipped_reason"] == "is not loaded"
    assert len(published.ordered("stop")) == 1


def test_the_token_is_in_no_log_and_in_no_answer(actuator, published):
    actuator.start("--log.level=debug", "--log.format=json")
    notify(actuator, alert())
    until(actuator.history, "the cycle in the history")
    answers = [actuator.request("GET", path)[2] for path in ("/", "/metrics", "/api/packages", "/nowhere")]
    actuator.request("POST", "/webhook/alertmanager", notification(alert()), token="x" * 43)
    actuator.stop()
    assert actuator.token() not in actuator.text()
    assert actuator.token() not in str(answers)
    assert all(json.loads(line)["level"] for line in actuator.text().splitlines())
