import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure_actuator.inbox.notification import MAX_ALERTS, NotificationError, classify, parse


def alert(name="MemoryPressureHigh", *, status="firing", drop=(), **labels):
    defaults = {"alertname": name, "node": "n1", "scope": "host", "level": name.removeprefix("MemoryPressure").lower()}
    defaults |= labels
    return {
        "status": status,
        "labels": {key: value for key, value in defaults.items() if key not in drop},
        "annotations": {"summary": "x"},
        "startsAt": "2026-11-22T10:00:00.123456789Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": "a1b2c3d4e5f60718",
    }


def notification(*alerts, **fields):
    content = {
        "version": "4",
        "groupKey": '{}:{node="n1"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "actuator",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": list(alerts) or [alert()],
    }
    return content | fields


def body(*alerts, **fields):
    return json.dumps(notification(*alerts, **fields)).encode()


def classified(content):
    return classify(parse(body(content)).alerts[0], node="n1")


def test_what_alertmanager_sends_is_understood():
    parsed = parse(body(alert(), alert(status="resolved")))
    assert [a.status for a in parsed.alerts] == ["firing", "resolved"]
    assert parsed.alerts[0].starts_at.timestamp() == pytest.approx(1795341600.123457)


def test_unknown_fields_are_ignored_and_a_missing_truncated_alerts_is_none():
    content = notification(alert() | {"new": {"deep": [1]}}, novelty=[1, 2])
    del content["truncatedAlerts"]
    assert parse(json.dumps(content).encode()).truncated_alerts == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda n: n.update(version="3"), "$.version"),
        (lambda n: n.pop("version"), "version"),
        (lambda n: n.update(version=4), "$.version"),
        (lambda n: n.update(status="maybe"), "$.status"),
        (lambda n: n.pop("groupKey"), "groupKey"),
        (lambda n: n.update(groupKey="k" * 9000), "$.groupKey"),
        (lambda n: n.pop("alerts"), "alerts"),
        (lambda n: n.update(alerts=[]), "$.alerts"),
        (lambda n: n.update(alerts={}), "$.alerts"),
        (lambda n: n.update(alerts=[alert()] * (MAX_ALERTS + 1)), "$.alerts"),
        (lambda n: n.update(truncatedAlerts=-1), "$.truncatedAlerts"),
        (lambda n: n["alerts"][0].pop("status"), "status"),
        (lambda n: n["alerts"][0].update(status="pending"), "$.alerts[0].status"),
        (lambda n: n["alerts"][0].pop("labels"), "labels"),
        (lambda n: n["alerts"][0].update(labels=[]), "$.alerts[0].labels"),
        (lambda n: n["alerts"][0]["labels"].update(x=1), "$.alerts[0].labels"),
        (lambda n: n["alerts"][0]["labels"].update({"n" * 300: "x"}), "$.alerts[0].labels"),
        (lambda n: n["alerts"][0]["labels"].update(x="v" * 5000), "$.alerts[0].labels"),
        (lambda n: n["alerts"][0]["labels"].update({str(i): "" for i in range(101)}), "$.alerts[0].labels"),
        (lambda n: n["alerts"][0].pop("startsAt"), "startsAt"),
        (lambda n: n["alerts"][0].update(startsAt="yesterday"), "$.alerts[0].startsAt"),
        (lambda n: n["alerts"][0].update(startsAt="2026-11-22T10:00:00"), "$.alerts[0].startsAt"),
        (lambda n: n["alerts"][0].pop("fingerprint"), "fingerprint"),
        (lambda n: n["alerts"][0].update(fingerprint=""), "$.alerts[0].fingerprint"),
        (lambda n: n["alerts"][0].update(fingerprint="f" * 65), "$.alerts[0].fingerprint"),
    ],
)
def test_a_fault_names_its_field_and_what_to_send(change, field):
    content = notification()
    change(content)
    with pytest.raises(NotificationError) as caught:
        parse(json.dumps(content).encode())
    assert field in str(caught.value)
    assert 'webhook, version "4"' in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{", b"\xff", b'{"a":' + b"[" * 300_000, b'"' + b"x" * 100])
def test_what_is_no_notification_is_refused(data):
    with pytest.raises(NotificationError):
        parse(data)


def test_as_many_alerts_as_allowed_are_taken():
    assert len(parse(body(*[alert()] * MAX_ALERTS)).alerts) == MAX_ALERTS


@pytest.mark.parametrize("level", ["warning", "medium", "high", "emergency"])
def test_each_level_is_accepted(level):
    found = classified(alert(f"MemoryPressure{level.capitalize()}", scope="app", app="shop"))
    assert found.result == "accepted"
    pressure = found.pressure
    assert (pressure.scope, pressure.app, pressure.level, pressure.firing) == ("app", "shop", level, True)
    assert pressure.fingerprint == "a1b2c3d4e5f60718"


@pytest.mark.parametrize(
    ("content", "result"),
    [
        (alert(), "accepted"),
        (alert(app=""), "accepted"),
        (alert(status="resolved"), "resolved"),
        (alert(node="n2"), "other_node"),
        (alert(node="n2", scope="nonsense"), "other_node"),
        (alert(node=""), "other_node"),
        (alert(drop=["node"]), "invalid"),
        (alert("MemoryPressureHeartbeat"), "heartbeat"),
        (alert("MemoryPressureHeartbeat", status="resolved"), "resolved"),
        (alert("MemoryPressureHeartbeat", node="n2"), "other_node"),
        (alert("MemoryPressureHeartbeat", drop=["node"]), "invalid"),
        (alert("MemoryPressureThresholdsMissing"), "unknown"),
        (alert("Watchdog", drop=["node"]), "unknown"),
        (alert(drop=["alertname"]), "unknown"),
        (alert(drop=["scope"]), "invalid"),
        (alert(scope="planet"), "invalid"),
        (alert(app="shop"), "invalid"),
        (alert(scope="app"), "invalid"),
        (alert(scope="app", app="a" * 201), "invalid"),
        (alert(drop=["level"]), "invalid"),
        (alert(level="medium"), "invalid"),
    ],
)
def test_what_an_alert_means_here(content, result):
    found = classified(content)
    assert found.result == result
    assert bool(found.problem) is (result == "invalid")
    is_pressure = content["labels"].get("alertname") == "MemoryPressureHigh" and result in ("accepted", "resolved")
    assert (found.pressure is not None) is is_pressure


def test_labels_are_data_only():
    found = classified(alert(scope="app", app="../../etc; rm -rf / \n\0"))
    assert found.pressure.app == "../../etc; rm -rf / \n\0"


@given(st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(msgspec.json.encode))
def test_nothing_but_a_notification_error_comes_out(data):
    with pytest.raises(NotificationError):
        parse(data)
