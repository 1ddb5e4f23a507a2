"""The configuration of Prometheus and Alertmanager, asked through promtool and amtool."""

from pathlib import Path

import pytest
import yaml

from tests.support.engines import run_tool

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"
ALERTMANAGER = ROOT / "deploy/alertmanager/alertmanager.yml"
RULES = ROOT / "rules/memory_pressure.yml"
# Receivers in the order of the routes. The actuator's alone: its heartbeat. Nobody's: the Watchdog.
RECEIVERS = {
    "MemoryPressureWarning": "actuator,null",
    "MemoryPressureMedium": "actuator,slack",
    "MemoryPressureHigh": "actuator,slack",
    "MemoryPressureEmergency": "actuator,slack",
    "MemoryPressureStalling": "slack",
    "MemoryPressureExhaustionPredicted": "slack",
    "MemoryPressureThresholdsMissing": "slack",
    "MemoryPressureExporterDown": "slack",
    "MemoryPressureActuatorDown": "slack",
    "MemoryPressureDataStale": "slack",
    "MemoryPressureActionFailed": "slack",
    "MemoryPressureNotificationsFailing": "slack",
    "MemoryPressureHeartbeat": "actuator",
    "Watchdog": "null",
}


def routed_to(labels):
    pairs = [f"{name}={value}" for name, value in labels.items()]
    done = run_tool("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *pairs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def alert_labels():
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    return {rule["alert"]: rule["labels"] for rule in rules if "alert" in rule}


def test_prometheus_accepts_its_configuration():
    done = run_tool("promtool", "check", "config", PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def test_alertmanager_accepts_its_configuration():
    done = run_tool("amtool", "check-config", ALERTMANAGER)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", RECEIVERS)
def test_an_alert_goes_to(alert):
    labels = {"alertname": alert, "node": "n1", **alert_labels()[alert]}
    assert routed_to(labels) == RECEIVERS[alert]
    assert routed_to({**labels, "scope": "app", "app": "shop"}) == RECEIVERS[alert]


def test_every_alert_has_a_place_to_go():
    assert set(alert_labels()) == set(RECEIVERS)


def test_an_alert_of_somebody_else_goes_to_people():
    assert routed_to({"alertname": "DiskFull", "severity": "critical"}) == "slack"


def test_the_actuators_groups_hold_a_node_in_order():
    routes = yaml.safe_load(ALERTMANAGER.read_text())["route"]["routes"]
    for route in (route for route in routes if route["receiver"] == "actuator"):
        assert route["group_by"] == ["node"]
        assert (route["group_wait"], route["group_interval"]) == ("0s", "1s")


def test_the_actuator_is_told_everything_with_its_token():
    receivers = yaml.safe_load(ALERTMANAGER.read_text())["receivers"]
    (webhook,) = next(receiver for receiver in receivers if receiver["name"] == "actuator")["webhook_configs"]
    assert webhook["send_resolved"] is True
    assert webhook["max_alerts"] == 0
    assert set(webhook["http_config"]["authorization"]) == {"credentials_file"}, "the token is in no file of ours"


def test_a_level_inhibits_every_lower_one_of_its_scope():
    rules = yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]
    assert all(rule["equal"] == ["node", "scope", "app"] for rule in rules)
    inhibited = {rule["source_matchers"][0]: rule["target_matchers"][0] for rule in rules}
    others = "Stalling|ExhaustionPredicted"
    assert inhibited == {
        'alertname = "MemoryPressureEmergency"': f'alertname =~ "MemoryPressure(Warning|Medium|High|{others})"',
        'alertname = "MemoryPressureHigh"': 'alertname =~ "MemoryPressure(Warning|Medium|ExhaustionPredicted)"',
        'alertname = "MemoryPressureMedium"': 'alertname = "MemoryPressureWarning"',
    }
