"""Autonomous when blind: the engines are killed or cut apart, and pressure is relieved all the same.

Heartbeats and their end come sooner here than as deployed, where one is expected each 5 s: Alertmanager repeats them
each second, and believes an alert for four seconds after Prometheus' last word instead of twenty.
"""

import dataclasses
import json

import pytest
import requests

from benchmarks import hoarder
from benchmarks.relay import Relay
from mempressure.state.node_reader import read_node
from stack.configuration import free_ports, write_alertmanager, write_prometheus
from stack.system import run_system
from tests.support.waiting import until

HEARTBEAT_SECONDS = 1.0
ENVIRONMENT = {
    "MEMPRESSURE_HEARTBEAT_INTERVAL": str(HEARTBEAT_SECONDS),
    # A hoarder with its five package processes uses 83 to 89 % of it, by how many other processes share Python's pages,
    # and with four of them less than 75 %.
    "MEMPRESSURE_BUDGET": "208MiB",
    "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT": "0.1",
}


class Blinded:
    """A system whose Prometheus reaches Alertmanager through a relay."""

    def __init__(self, system, engines):
        self.system = system
        self.engines = engines
        self.relay = Relay(system.ports.alertmanager)

    def start_alertmanager(self):
        def start(system):
            path = system.directory / "alertmanager.yml"
            token = system.directory / "state" / "token"
            write_alertmanager(path, system.ports.addresses, token_file=token, slack_url_file=None)
            content = json.loads(path.read_text())
            heartbeats = content["route"]["routes"][0]
            assert "Heartbeat" in heartbeats["matchers"][0]
            heartbeats |= {"group_interval": "500ms", "repeat_interval": "900ms"}
            path.write_text(json.dumps(content))
            command = [
                self.engines.alertmanager,
                f"--config.file={path}",
                f"--storage.path={system.directory / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{system.ports.alertmanager}",
                "--cluster.listen-address=",
            ]
            return system.processes.start("alertmanager", command), "/-/ready"

        return self.system.bring_up("alertmanager", start)

    def start_prometheus(self):
        def start(system):
            path = system.directory / "prometheus.yml"
            addresses = dataclasses.replace(system.ports.addresses, alertmanager=f"127.0.0.1:{self.relay.port}")
            write_prometheus(path, addresses, token_file=system.directory / "state" / "token")
            command = [
                self.engines.prometheus,
                f"--config.file={path}",
                f"--storage.tsdb.path={system.directory / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{system.ports.prometheus}",
                "--rules.alert.resend-delay=1s",
            ]
            return system.processes.start("prometheus", command), "/-/ready"

        return self.system.bring_up("prometheus", start)

    def set_thresholds(self):
        """Set thresholds under which the reflex, which acts at emergency, leaves the hoarders to the control loop."""
        requests.post(
            self.system.url("actuator") + "/api/packages/memory/pressure-thresholds",
            json={"warning": 0.6, "unload_packages": 0.8, "aggressive_unload": 0.98, "emergency": 0.99},
            headers={"Authorization": f"Bearer {self.system.token}"},
            timeout=10,
        ).raise_for_status()

    def metric(self, name):
        text = requests.get(self.system.url("actuator") + "/metrics", timeout=10).text
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))

    def log(self):
        return self.system.running["actuator"].log.read_text()

    def led_by_alerts(self, what):
        """Wait until heartbeats arrive and alerts trigger the cycles."""
        until(
            lambda: (
                self.metric("mempressure_actuator_autonomous") == 0
                and self.metric("mempressure_actuator_last_heartbeat_timestamp_seconds") > 0
            ),
            f"the alerts' lead {what}",
            seconds=40,
        )

    def relieves(self, app):
        """Bring an app under pressure; check that the actuator finds out and relieves it by itself, and says so."""
        told = self.log().count("autonomous, the thresholds are evaluated here: reason=no heartbeat for 3 s")
        orders = self.system.directory / f"orders-{app}"
        environ = {"MEMPRESSURE_APP": app, hoarder.ORDERS_VARIABLE: str(orders)}
        worker = self.system.processes.start(f"hoarder-{app}", hoarder.command(again=False), environ=environ)

        def cycles():
            answer = self.system.get("actuator", "/api/packages/memory/history", app=app, result="done")
            return [cycle for cycle in answer["data"]["cycles"] if cycle["outcome"] == "relieved"]

        (cycle,) = until(cycles, f"the relief of {app}", seconds=40)
        assert cycle["trigger"] == "autonomous"
        assert 0.8 <= cycle["usage_before"] < 0.99
        assert cycle["usage_after"] < 0.75
        assert self.metric("mempressure_actuator_autonomous") == 1
        log = self.log()
        assert log.count("autonomous, the thresholds are evaluated here: reason=no heartbeat for 3 s") == told + 1
        memory = read_node(self.system.runtime_directory, on_problem=lambda _: None).apps[app].memory
        assert memory.usage < 0.75
        worker.stop()


@pytest.fixture
def blinded(engines, tmp_path):
    with run_system(free_ports(), engines=None, logs=tmp_path / "logs", environ=ENVIRONMENT, sample=False) as system:
        made = Blinded(system, engines)
        try:
            made.set_thresholds()
            made.start_alertmanager()
            made.start_prometheus()
            made.led_by_alerts("at the start")
            yield made
        finally:
            made.relay.close()


@pytest.mark.timeout(240)
def test_whatever_blinds_it_pressure_is_relieved_and_alerts_lead_again_once_they_can(blinded):
    running = blinded.system.running

    running["alertmanager"].kill()
    blinded.relieves("no-alertmanager")
    blinded.start_alertmanager()
    blinded.led_by_alerts("with Alertmanager back")

    blinded.relay.sever()
    blinded.relieves("cut-network")
    blinded.relay.cut = False
    blinded.led_by_alerts("with the network whole")

    running["prometheus"].kill()
    blinded.relieves("no-prometheus")
    blinded.start_prometheus()
    blinded.led_by_alerts("with Prometheus back")
    assert blinded.log().count("no longer autonomous, alerts trigger the cycles again") >= 3
