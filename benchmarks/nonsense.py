"""Nonsense sent to the webhook's handler in this process, and to a server: what is answered, logged and changed."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import fuzz
from benchmarks.managed import LOGS, NODE, WEBHOOK, Managed, managed
from mempressure.config.configuration import load_configuration
from mempressure_actuator.actuator import Actuator
from mempressure_actuator.api.access import Access
from mempressure_actuator.api.token import load_token
from mempressure_actuator.application import create_app


class Nonsense:
    """What nonsense was answered, and what it did."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.errors = 0
        self.changed = 0

    @property
    def of_server(self) -> int:
        """Return how many answers say that the server failed."""
        return sum(count for status, count in self.answers.items() if status.startswith("5") and status != "505")


def nonsense(*, payloads: int, requests: int, logs: Path = LOGS) -> tuple[Nonsense, Nonsense]:
    """Send generated payloads to the handler in this process, and generated requests to a server."""
    handled, answered = Nonsense(), Nonsense()
    with managed(logs=logs) as node:
        before = _state(node)
        answered.answers = fuzz.send(node, requests)
        answered.errors = node.log.count("level=error") + node.log.count("Traceback")
        answered.changed = int(_state(node) != before)
        node.stop_actuator()
        state = node.directory / "state"
        environ = {"MEMPRESSURE_STATE_DIR": str(state), "MEMPRESSURE_RUNTIME_DIR": str(node.directory / "runtime")}
        actuator = Actuator(load_configuration(environ={**environ, "MEMPRESSURE_NODE": NODE}))
        told = _Errors()
        logging.getLogger().addHandler(told)
        try:
            access = Access(load_token(state / "token"), host="127.0.0.1")
            client = create_app(actuator, access=access).test_client()
            headers = {"Authorization": f"Bearer {node.token}", "Content-Type": "application/json"}
            for body in fuzz.payloads(payloads):
                answer = client.post(WEBHOOK, data=body, headers=headers)
                handled.answers[str(answer.status_code)] += 1
        finally:
            logging.getLogger().removeHandler(told)
            actuator.stop()
        handled.errors = told.count
        handled.changed = int(_state(node) != before)
    return handled, answered


class _Errors(logging.Handler):
    """Counts records at level error, and those with an exception."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.levelno >= logging.ERROR or record.exc_info is not None


def _state(node: Managed) -> tuple[Any, ...]:
    """Return what no nonsense may change: leases, alerts, and what was set."""
    settings = node.directory / "state" / "settings.json"
    tables = ("leases", "deliveries", "heartbeat", "actions")
    rows = [node.stored(f"SELECT * FROM {table}") for table in tables]  # noqa: S608 -- our own names
    return (rows, settings.read_bytes() if settings.exists() else b"")
