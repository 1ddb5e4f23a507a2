"""A storm of webhooks: many connections, duplicates and nonsense, while the actuator is killed and started again.

Each client does what Alertmanager does: what is answered 5xx, or not at all, it sends again until it is answered.
"""

import collections
import http.client
import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.managed import LOGS, THRESHOLDS, WEBHOOK, Managed, alert, managed, notification
from benchmarks.service import wait

DUPLICATES = 0.3
MALFORMED = 0.1
MOST_TRIES = 600
_PAUSE_SECONDS = 0.1
_LEVELS = ("warning", "medium", "high", "emergency")


@dataclass(slots=True)
class Storm:
    """What came of it."""

    sent: int = 0
    answers: collections.Counter[int] = field(default_factory=collections.Counter)
    unanswered: int = 0
    acknowledged: set[str] = field(default_factory=set)
    """Fingerprints answered 202."""
    gave_up: int = 0
    lost: int = 0
    orders: int = 0
    twice: int = 0
    kills: int = 0
    after_last_kill: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    """Lines of the actuator's log at level error, or with a traceback."""

    @property
    def unexpected(self) -> int:
        """Return how many answers were neither 202, nor 4xx, nor 503."""
        return sum(count for status, count in self.answers.items() if status not in (202, 503) and status // 100 != 4)


def run_storm(*, webhooks: int, kills: int, connections: int = 16, logs: Path = LOGS) -> Storm:
    """Send `webhooks` while the actuator is killed `kills` times; return what came of it."""
    storm = Storm()
    # Critical at any usage: cycle after cycle, so that every kill hits one that acts.
    with managed(logs=logs, MEMPRESSURE_CRITICAL_RATIO="0.05") as node:
        node.set_thresholds(THRESHOLDS)
        node.start_hoarder("hoard", again=True)
        bodies = iter(_bodies(webhooks))
        clients = [
            threading.Thread(target=_client, args=(node, bodies, storm, lock))
            for lock in [threading.Lock()]
            for _ in range(connections)
        ]
        started = time.monotonic()
        for client in clients:
            client.start()
        try:
            for number in range(1, kills + 1):
                wait(partial(_has_sent, storm, number * webhooks // (kills + 1)), "webhooks", seconds=600)
                node.kill_actuator()
                storm.kills += 1
                node.start_actuator()
        finally:
            for client in clients:
                client.join()
        storm.seconds = time.monotonic() - started
        before = len(node.orders())
        # Whatever was stored is acted on: the workers fill up again, and are emptied again.
        wait(lambda: len(node.orders()) > before, "an order after the last kill", seconds=120)
        node.stop_actuator()
        orders = node.orders()
        storm.orders, storm.twice = len(orders), len(orders) - len(set(orders))
        storm.after_last_kill = len(orders) - before
        stored = {fingerprint for (fingerprint,) in node.stored("SELECT fingerprint FROM deliveries")}
        storm.lost = len(storm.acknowledged - stored)
        storm.errors = [line for line in node.log.splitlines() if "level=error" in line or "Traceback" in line]
    return storm


def _has_sent(storm: Storm, count: int) -> bool:
    return storm.sent >= count


def _bodies(count: int) -> list[tuple[str, bytes]]:
    """Return fingerprints and bodies; a malformed body has the fingerprint "". The same ones each time."""
    chance = random.Random(5)  # noqa: S311 -- a repeatable load, no secret
    bodies: list[tuple[str, bytes]] = []
    numbers = itertools.count(1)
    while len(bodies) < count:
        draw = chance.random()
        valid = [body for body in bodies[-200:] if body[0]]
        if draw < MALFORMED:
            bodies.append(("", _malformed(chance)))
        elif draw < MALFORMED + DUPLICATES and valid:
            bodies.append(chance.choice(valid))
        else:
            fingerprint = f"{next(numbers):016x}"
            level = chance.choice(_LEVELS)
            app = "hoard" if chance.random() < 0.8 else f"other-{chance.randrange(50)}"
            content = notification(alert(fingerprint=fingerprint, app=app, level=level))
            bodies.append((fingerprint, json.dumps(content).encode()))
    return bodies


def _malformed(chance: random.Random) -> bytes:
    content: dict[str, Any] = notification(alert(fingerprint="f" * 16))
    whole = json.dumps(content).encode()
    del content["alerts"][0]["fingerprint"]
    return chance.choice(
        [b"", b"{}", whole[: len(whole) // 2], whole.replace(b'"4"', b'"3"'), json.dumps(content).encode()]
    )


def _client(node: Managed, bodies: Any, storm: Storm, lock: threading.Lock) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    headers = {"Authorization": f"Bearer {node.token}", "Content-Type": "application/json"}
    while True:
        with lock:
            fingerprint, body = next(bodies, ("end", b""))
            if fingerprint == "end":
                break
            storm.sent += 1
        for _ in range(MOST_TRIES):
            status = _sent(connection, body, headers)
            with lock:
                if status:
                    storm.answers[status] += 1
                else:
                    storm.unanswered += 1
                if status == http.client.ACCEPTED:
                    storm.acknowledged.add(fingerprint)
            if status and status < http.client.INTERNAL_SERVER_ERROR:
                break
            time.sleep(_PAUSE_SECONDS)
        else:
            with lock:
                storm.gave_up += 1
    connection.close()


def _sent(connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> int:
    """Send one notification; return the status, 0 where there was no answer."""
    try:
        connection.request("POST", WEBHOOK, body, headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0
    return answer.status
