"""The engines' configuration for one run: the files in `deploy/`, with this run's addresses and paths put in."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stack.engines import ROOT
from stack.processes import free_port

PROMETHEUS_FILE = ROOT / "deploy" / "prometheus" / "prometheus.yml"
ALERTMANAGER_FILE = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
RULES_FILE = ROOT / "rules" / "memory_pressure.yml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports on loopback."""

    exporter: int
    actuator: int
    prometheus: int
    alertmanager: int
    sample: int


def usual_ports() -> Ports:
    """Return the ports that people know, others in place of those in use."""
    return Ports(
        exporter=free_port(10061),
        actuator=free_port(10062),
        prometheus=free_port(9090),
        alertmanager=free_port(9093),
        sample=free_port(8000),
    )


def free_ports() -> Ports:
    """Return ports that the kernel chooses."""
    return Ports(
        exporter=free_port(),
        actuator=free_port(),
        prometheus=free_port(),
        alertmanager=free_port(),
        sample=free_port(),
    )


def write_prometheus(path: Path, ports: Ports) -> None:
    """Write Prometheus' configuration for this run."""
    content = yaml.safe_load(PROMETHEUS_FILE.read_text())
    content["rule_files"] = [str(RULES_FILE)]
    content["alerting"]["alertmanagers"][0]["static_configs"] = _targets(ports.alertmanager)
    by_job = {
        "mempressure-exporter": ports.exporter,
        "mempressure-actuator": ports.actuator,
        "prometheus": ports.prometheus,
        "alertmanager": ports.alertmanager,
    }
    for job in content["scrape_configs"]:
        job["static_configs"] = _targets(by_job[job["job_name"]])
    _write(path, content)


def write_alertmanager(path: Path, ports: Ports, *, token_file: Path, slack_url_file: Path | None) -> None:
    """Write Alertmanager's configuration for this run; without Slack's address its receiver is empty."""
    content = yaml.safe_load(ALERTMANAGER_FILE.read_text())
    for receiver in content["receivers"]:
        for webhook in receiver.get("webhook_configs", ()):
            webhook["url"] = f"http://127.0.0.1:{ports.actuator}/webhook/alertmanager"
            webhook["http_config"]["authorization"]["credentials_file"] = str(token_file)
        if slack_url_file is None:
            receiver.pop("slack_configs", None)
        for slack in receiver.get("slack_configs", ()):
            slack["api_url_file"] = str(slack_url_file)
    _write(path, content)


def slack_url_file() -> Path | None:
    """Return the file that `SLACK_URL_FILE` names, which holds the address of Slack's webhook; None if unset."""
    path = os.environ.get("SLACK_URL_FILE")
    return Path(path) if path else None


def _targets(port: int) -> list[dict[str, list[str]]]:
    return [{"targets": [f"127.0.0.1:{port}"]}]


def _write(path: Path, content: Any) -> None:
    # JSON is YAML: no quoting to get wrong.
    path.write_text(json.dumps(content, indent=2))
