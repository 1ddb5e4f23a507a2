"""The engines' configuration for one run: the files in `deploy/`, with this run's addresses and paths put in.

`make up`, `make demo` and tests call it; compose.yaml runs it as `python -m stack.configuration` before the engines.
"""

import argparse
import ipaddress
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stack.engines import ROOT
from stack.processes import free_port

PROMETHEUS_FILE = ROOT / "deploy" / "prometheus" / "prometheus.yml"
ALERTMANAGER_FILE = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
SLACK_FILE = ROOT / "deploy" / "alertmanager" / "slack.tmpl"
RULES_FILE = ROOT / "rules" / "memory_pressure.yml"
GRAFANA = "http://127.0.0.1:3000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the parts reach each other, as HOST:PORT, and where people reach Grafana, as a URL."""

    exporter: str
    actuator: str
    prometheus: str
    alertmanager: str
    grafana: str = GRAFANA


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports on loopback."""

    exporter: int
    actuator: int
    prometheus: int
    alertmanager: int
    sample: int

    @property
    def addresses(self) -> Addresses:
        """Return where the parts reach each other."""
        return Addresses(
            exporter=f"127.0.0.1:{self.exporter}",
            actuator=f"127.0.0.1:{self.actuator}",
            prometheus=f"127.0.0.1:{self.prometheus}",
            alertmanager=f"127.0.0.1:{self.alertmanager}",
        )


USUAL = {"exporter": 10061, "actuator": 10062, "prometheus": 9090, "alertmanager": 9093, "sample": 8000}
"""The ports that people know."""


def usual_ports() -> Ports:
    """Return the ports that people know, others in place of those in use."""
    return Ports(**{name: free_port(port) for name, port in USUAL.items()})


def free_ports() -> Ports:
    """Return ports that the kernel chooses."""
    return Ports(
        exporter=free_port(),
        actuator=free_port(),
        prometheus=free_port(),
        alertmanager=free_port(),
        sample=free_port(),
    )


def write_prometheus(path: Path, addresses: Addresses, *, token_file: Path) -> None:
    """Write Prometheus' configuration for this run, and a copy of the rules beside it."""
    content = yaml.safe_load(PROMETHEUS_FILE.read_text())
    shutil.copy(RULES_FILE, path.parent)
    content["rule_files"] = [RULES_FILE.name]
    content["alerting"]["alertmanagers"][0]["static_configs"] = _targets(addresses.alertmanager)
    by_job = {
        "mempressure-exporter": addresses.exporter,
        "mempressure-actuator": addresses.actuator,
        "prometheus": addresses.prometheus,
        "alertmanager": addresses.alertmanager,
    }
    for job in content["scrape_configs"]:
        job["static_configs"] = _targets(by_job[job["job_name"]])
        if job["job_name"] == "mempressure-actuator" and not _is_loopback(addresses.actuator):
            # Beyond loopback the actuator wants to see its token for reading, too.
            job["authorization"] = {"credentials_file": str(token_file)}
    _write(path, content)


def write_alertmanager(path: Path, addresses: Addresses, *, token_file: Path, slack_url_file: Path | None) -> None:
    """Write Alertmanager's configuration for this run, and its templates beside it.

    Without Slack's address its receiver is empty: nothing is sent to people, and nothing fails for it.
    """
    content = yaml.safe_load(ALERTMANAGER_FILE.read_text())
    for receiver in content["receivers"]:
        for webhook in receiver.get("webhook_configs", ()):
            webhook["url"] = f"http://{addresses.actuator}/webhook/alertmanager"
            webhook["http_config"]["authorization"]["credentials_file"] = str(token_file)
        if slack_url_file is None:
            receiver.pop("slack_configs", None)
        for slack in receiver.get("slack_configs", ()):
            slack["api_url_file"] = str(slack_url_file)
    shutil.copy(SLACK_FILE, path.parent)
    grafana = f'{{{{ define "mempressure.grafana" }}}}{addresses.grafana}{{{{ end }}}}\n'
    (path.parent / "addresses.tmpl").write_text(grafana)
    _write(path, content)


def slack_url_file() -> Path | None:
    """Return the file that `SLACK_URL_FILE` names, which holds the address of Slack's webhook; None if unset."""
    path = os.environ.get("SLACK_URL_FILE")
    return Path(path) if path else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the configuration of both engines into a directory."""
    parser = argparse.ArgumentParser(prog="python -m stack.configuration", description=main.__doc__)
    parser.add_argument("directory", type=Path, help="where prometheus.yml, alertmanager.yml and what they name go")
    for part, port in (("exporter", 10061), ("actuator", 10062), ("prometheus", 9090), ("alertmanager", 9093)):
        parser.add_argument(f"--{part}", metavar="HOST:PORT", default=f"127.0.0.1:{port}", help="default: %(default)s")
    parser.add_argument("--grafana", metavar="URL", default=GRAFANA, help="as people reach it (default: %(default)s)")
    parser.add_argument("--token-file", type=Path, required=True, help="the actuator's, as the engines see it")
    parser.add_argument("--slack-url-file", type=Path, help="holds the address of Slack's webhook; empty: no Slack")
    options = parser.parse_args(arguments)
    slack: Path | None = options.slack_url_file
    if slack is None or not (slack.exists() and slack.read_text().strip()):
        print(f"Slack is not configured, people get no messages: {slack or '--slack-url-file'} holds no address")
        slack = None
    addresses = Addresses(
        exporter=options.exporter,
        actuator=options.actuator,
        prometheus=options.prometheus,
        alertmanager=options.alertmanager,
        grafana=options.grafana,
    )
    write_prometheus(options.directory / "prometheus.yml", addresses, token_file=options.token_file)
    write_alertmanager(
        options.directory / "alertmanager.yml", addresses, token_file=options.token_file, slack_url_file=slack
    )
    return 0


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.rpartition(":")[0]).is_loopback
    except ValueError:
        return False


def _targets(address: str) -> list[dict[str, list[str]]]:
    return [{"targets": [address]}]


def _write(path: Path, content: Any) -> None:
    # JSON is YAML: no quoting to get wrong.
    path.write_text(json.dumps(content, indent=2))


if __name__ == "__main__":
    sys.exit(main())
