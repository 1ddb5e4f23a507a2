"""The whole system of one run, in temporary directories and on ports of its own."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from stack.configuration import Ports, write_alertmanager, write_prometheus
from stack.engines import ROOT, Engines
from stack.processes import Process, Processes

BUDGET = "320MiB"
"""What the sample may use: its workers, with every package loaded, take some 90 % of it."""

SAMPLE_ENVIRONMENT = {
    "MEMPRESSURE_BUDGET": BUDGET,
    "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT": "10",
    "MEMPRESSURE_RECYCLE": "normal",
    "MEMPRESSURE_RECYCLE_MIN_LIFETIME": "5",
    "MPLBACKEND": "agg",
    "MPLCONFIGDIR": str(ROOT / "build" / "matplotlib"),  # its font cache would lie in the home directory
}


@dataclass(slots=True)
class System:
    """Everything that runs, and where."""

    ports: Ports
    directory: Path
    processes: Processes
    running: dict[str, Process]

    def url(self, name: str) -> str:
        """Return the address of a part: exporter, actuator, prometheus, alertmanager or sample."""
        return f"http://127.0.0.1:{getattr(self.ports, name)}"

    @property
    def token(self) -> str:
        """Return the actuator's token."""
        return (self.directory / "state" / "token").read_text().strip()

    @property
    def runtime_directory(self) -> Path:
        """Return where the workers publish."""
        return self.directory / "runtime"

    def get(self, name: str, path: str, **params: str) -> Any:
        """Return the JSON that a part answers to a GET."""
        answer = requests.get(self.url(name) + path, params=params, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def bring_up(self, name: str, start: "Start") -> Process:
        """Start a part, wait until it is ready, and return its process.

        Raises:
            StartError: it did not come up.
        """
        process, ready = start(self)
        self.running[name] = process
        process.wait_until(lambda: self.healthy(name, ready))
        return process

    def healthy(self, name: str, path: str) -> bool:
        """Return whether a part answers 200."""
        try:
            return bool(requests.get(self.url(name) + path, timeout=2).status_code == requests.codes.ok)
        except (requests.ConnectionError, requests.Timeout):
            return False


@contextlib.contextmanager
def run_system(
    ports: Ports,
    *,
    engines: Engines | None,
    logs: Path,
    environ: Mapping[str, str] | None = None,
    slack_url_file: Path | None = None,
    sample: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[System]:
    """Start everything, wait until it is ready, and stop it at the end of the block.

    Args:
        ports: where the parts listen.
        engines: Prometheus and Alertmanager; without them the actuator evaluates the thresholds itself.
        logs: a directory for the parts' logs.
        environ: settings besides the sample's own.
        slack_url_file: holds the address of Slack's webhook.
        sample: start the sample too.
        say: called with each part that is ready.

    Raises:
        StartError: a part did not come up.
    """
    # Short, because a Unix socket's path has 107 bytes at most.
    directory = Path(tempfile.mkdtemp(prefix="mempressure-"))
    settings = {
        **SAMPLE_ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in (".", "exporter", "actuator")),
        "PYTHONUNBUFFERED": "1",
        "MEMPRESSURE_RUNTIME_DIR": str(directory / "runtime"),
        "MEMPRESSURE_STATE_DIR": str(directory / "state"),
        **(environ or {}),
    }
    try:
        with Processes(logs=logs, environ=settings) as processes:
            system = System(ports, directory, processes, {})
            for name, start in _parts(engines, slack_url_file, sample=sample).items():
                system.bring_up(name, start)
                say(f"{name:13} {system.url(name)}")
            yield system
    finally:
        shutil.rmtree(directory, ignore_errors=True)


Start = Callable[[System], tuple[Process, str]]


def _parts(engines: Engines | None, slack_url_file: Path | None, *, sample: bool) -> dict[str, Start]:
    parts: dict[str, Start] = {"exporter": start_exporter, "actuator": start_actuator}
    if engines is not None:
        parts["alertmanager"] = lambda system: _start_alertmanager(system, engines, slack_url_file)
        parts["prometheus"] = lambda system: _start_prometheus(system, engines)
    if sample:
        parts["sample"] = start_sample
    return parts


def start_exporter(system: System) -> tuple[Process, str]:
    """Start the exporter; return it and the path that says it is ready."""
    address = f"127.0.0.1:{system.ports.exporter}"
    command = [sys.executable, "-m", "mempressure_exporter", f"--web.listen-address={address}"]
    return system.processes.start("exporter", command), "/-/ready"


def start_actuator(system: System) -> tuple[Process, str]:
    """Start the actuator; return it and the path that says it is ready."""
    address = f"127.0.0.1:{system.ports.actuator}"
    command = [sys.executable, "-m", "mempressure_actuator", f"--web.listen-address={address}"]
    return system.processes.start("actuator", command), "/-/ready"


def start_sample(system: System, *, app: str = "sample") -> tuple[Process, str]:
    """Start the sample under gunicorn, two workers of four threads; return it and the path that says it is ready."""
    command = [
        *(sys.executable, "-m", "gunicorn", "app.main:app", "--chdir", str(ROOT)),
        *("--bind", f"127.0.0.1:{system.ports.sample}", "--workers", "2"),
        *("--worker-class", "gthread", "--threads", "4", "--keep-alive", "75"),
        "--no-control-socket",  # it would lie in the home directory, one for all gunicorns
    ]
    return system.processes.start("sample", command, environ={"MEMPRESSURE_APP": app}), "/ping"


def _start_alertmanager(system: System, engines: Engines, slack_url_file: Path | None) -> tuple[Process, str]:
    path = system.directory / "alertmanager.yml"
    token_file = system.directory / "state" / "token"
    write_alertmanager(path, system.ports.addresses, token_file=token_file, slack_url_file=slack_url_file)
    command = [
        engines.alertmanager,
        f"--config.file={path}",
        f"--storage.path={system.directory / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{system.ports.alertmanager}",
        "--cluster.listen-address=",  # alone, it has no peers to listen for
    ]
    return system.processes.start("alertmanager", command), "/-/ready"


def _start_prometheus(system: System, engines: Engines) -> tuple[Process, str]:
    path = system.directory / "prometheus.yml"
    write_prometheus(path, system.ports.addresses, token_file=system.directory / "state" / "token")
    command = [
        engines.prometheus,
        f"--config.file={path}",
        f"--storage.tsdb.path={system.directory / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{system.ports.prometheus}",
        "--rules.alert.resend-delay=5s",  # see deploy/prometheus/prometheus.yml
    ]
    return system.processes.start("prometheus", command), "/-/ready"
