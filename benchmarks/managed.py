"""An actuator and the workers that it manages, in directories of their own, for benchmarks of the control loop."""

import contextlib
import http.client
import json
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import hoarder
from benchmarks.service import wait
from mempressure.state.node_reader import read_node
from stack.engines import ROOT
from stack.processes import Process, Processes, free_port

LOGS = ROOT / "build" / "logs" / "bench"
NODE = "n1"
WEBHOOK = "/webhook/alertmanager"
HOARDERS_BUDGET = "300MiB"
"""Of which a hoarder uses a good half while its five hosts hold memory, and less than a tenth once they do not."""
THRESHOLDS = {"warning": 0.1, "unload_packages": 0.16, "aggressive_unload": 0.97, "emergency": 0.99}
"""Such that four of a hoarder's five hosts are not enough: the exit is 0.11. The last host and its worker use 0.17 on a
quiet machine, and less beside other Pythons: what processes share counts by its share."""


class Managed:
    """One machine's actuator and workers.

    Args:
        directory: for state, sockets and orders; short.
        processes: starts them.
        environ: settings of the actuator besides its own.
    """

    def __init__(self, directory: Path, processes: Processes, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self.port = free_port()
        self._processes = processes
        self._environ = environ
        self._actuator: Process | None = None

    @property
    def token(self) -> str:
        """Return the actuator's token."""
        return (self.directory / "state" / "token").read_text().strip()

    @property
    def log(self) -> str:
        """Return what the actuator has logged."""
        return (self._processes.logs / "actuator.log").read_text(errors="replace")

    def start_actuator(self) -> None:
        """Start the actuator, or start it again, and wait until it answers."""
        command = [sys.executable, "-m", "mempressure_actuator", f"--web.listen-address=127.0.0.1:{self.port}"]
        self._actuator = self._processes.start("actuator", command, environ=self._environ)
        self._actuator.wait_until(self._ready, seconds=60)

    def kill_actuator(self) -> None:
        """End the actuator with SIGKILL."""
        if self._actuator is not None:
            self._actuator.kill()

    def stop_actuator(self) -> None:
        """End the actuator in order."""
        if self._actuator is not None:
            self._actuator.stop(number=signal.SIGTERM)

    def start_hoarder(self, app: str, *, again: bool) -> Process:
        """Start a worker of its own app and wait until its five hosts hold memory."""
        orders = self.directory / f"orders-{app}"
        process = self._processes.start(
            f"hoarder-{app}",
            hoarder.command(again=again),
            environ={"MEMPRESSURE_APP": app, hoarder.ORDERS_VARIABLE: str(orders)},
        )
        process.wait_until(lambda: self.held(app) >= len(hoarder.PACKAGES) * hoarder.HELD_BYTES, seconds=60)
        return process

    def held(self, app: str) -> int:
        """Return the bytes that an app's package processes hold, as its worker last said."""
        reading = read_node(self.directory / "runtime", on_problem=lambda _: None).apps.get(app)
        return (
            sum(
                int(package.memory_bytes) for worker in reading.workers for package in worker.packages if package.loaded
            )
            if reading
            else 0
        )

    def orders(self, app: str = "*") -> list[str]:
        """Return the orders that were carried out (id, what, package), each as often as it was."""
        return [line for path in sorted(self.directory.glob(f"orders-{app}")) for line in path.read_text().splitlines()]

    def ask(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        """Make one request of the actuator with its token; return status and JSON, or None."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            body = None if content is None else json.dumps(content)
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            is_json = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(data) if is_json else None

    def set_thresholds(self, thresholds: Mapping[str, float]) -> None:
        """Set the thresholds.

        Raises:
            RuntimeError: they are not taken.
        """
        status, answer = self.ask("POST", "/api/packages/memory/pressure-thresholds", dict(thresholds))
        if status != http.client.OK:
            raise RuntimeError(f"thresholds were not set: {answer}")

    def stored(self, query: str) -> list[Any]:
        """Return the rows of a query on the store."""
        with contextlib.closing(sqlite3.connect(self.directory / "state" / "actuator.sqlite")) as database:
            return database.execute(query).fetchall()

    def _ready(self) -> bool:
        try:
            return self.ask("GET", "/-/ready")[0] == http.client.OK
        except OSError:
            return False


@contextlib.contextmanager
def managed(*, logs: Path = LOGS, **environ: str) -> Iterator[Managed]:
    """Run an actuator until the block ends, whatever happens in it.

    Args:
        logs: where the processes log.
        environ: settings of the actuator.
    """
    directory = Path(tempfile.mkdtemp(prefix="mempressure-"))  # short: a Unix socket's path has 107 bytes at most
    settings = {
        "MEMPRESSURE_RUNTIME_DIR": str(directory / "runtime"),
        "MEMPRESSURE_STATE_DIR": str(directory / "state"),
        "MEMPRESSURE_NODE": NODE,
        "MEMPRESSURE_BUDGET": HOARDERS_BUDGET,
        "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT": "0.1",
        "PYTHONPATH": ":".join(str(ROOT / part) for part in (".", "exporter", "actuator")),
    }
    of_actuator = {"MEMPRESSURE_HEARTBEAT_INTERVAL": "3600", "MEMPRESSURE_THRESHOLD_FLOOR": "0.06", **environ}
    try:
        with Processes(logs=logs, environ=settings) as processes:
            (logs / "actuator.log").unlink(missing_ok=True)
            node = Managed(directory, processes, of_actuator)
            node.start_actuator()
            yield node
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def notification(*alerts: dict[str, Any]) -> dict[str, Any]:
    """Return a notification as Alertmanager's webhook has it."""
    return {
        "version": "4",
        "groupKey": f'{{}}:{{node="{NODE}"}}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "actuator",
        "groupLabels": {"node": NODE},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://localhost:9093",
        "alerts": list(alerts),
    }


def alert(*, fingerprint: str, app: str = "hoard", level: str = "medium", status: str = "firing") -> dict[str, Any]:
    """Return one alert of pressure on an app of this node."""
    return {
        "status": status,
        "labels": {
            "alertname": f"MemoryPressure{level.capitalize()}",
            "node": NODE,
            "scope": "app",
            "app": app,
            "level": level,
        },
        "annotations": {"summary": "an app uses much of its memory"},
        "startsAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://localhost:9090/graph",
        "fingerprint": fingerprint,
    }


def wait_for_hosts_to_end(pid: int) -> float:
    """Wait until a worker has no package process any more; return when that was, on the monotonic clock."""
    path = Path(f"/proc/{pid}/task")

    def gone() -> bool:
        return not any(_children(task) for task in path.iterdir())

    wait(gone, "the end of the package processes")
    return time.monotonic()


def _children(task: Path) -> str:
    try:
        return (task / "children").read_text().strip()
    except FileNotFoundError:  # the thread has ended, and its children are another's
        return ""
