"""Nonsense, generated: payloads of the webhook, none of which may change anything, and HTTP requests of every kind.

Each payload is wrong by its making, or about somebody else: a field dropped, or of another type; another node; a label
that is missing; text cut off. So whatever the answer is, leases, alerts and settings must be as they were.
"""

import collections
import contextlib
import copy
import json
import random
import socket
from collections.abc import Iterator
from typing import Any

from benchmarks.managed import WEBHOOK, Managed, alert, notification

_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD")
_OTHER_METHODS = ("PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "P\x00ST", "")
_VERSIONS = ("HTTP/1.0", "HTTP/9.9", "SPDY", "")
_PATHS = (
    "/",
    "/metrics",
    "/-/healthy",
    "/api/packages",
    "/api/packages/memory/history?limit=5",
    "/api/packages/memory/history?before=x&before=y",
    "/api/packages/%ff/unload",
    "/api/packages/memory/pressure-thresholds",
    WEBHOOK,
    "/../../etc/passwd",
    "//",
    "*",
    "http://elsewhere/",
    "/" + "a" * 5000,
)
_NEVER: tuple[Any, ...] = (None, True, -1, 1e308, "", "x" * 9000, [[]], {"a": {"b": []}}, "\x00\ud7ff")
_WRONG: dict[str, tuple[Any, ...]] = {
    "version": (*_NEVER, 4, "3"),
    "status": (*_NEVER, "pending", []),
    "groupKey": (None, True, -1, "x" * 9000, []),
    "alerts": (None, True, "", {}, [], [[]], [{}]),
    "labels": (*_NEVER, {"n" * 300: ""}, {"x": "v" * 5000}),
    "startsAt": (*_NEVER, "yesterday", "2026-11-22T10:00:00", "9999-99-99T99:99:99Z"),
    "fingerprint": (None, True, -1, "", "x" * 65, []),
}
"""What a field never is."""


def payloads(count: int, *, seed: int = 7) -> Iterator[bytes]:
    """Return so many payloads, the same ones each time."""
    chance = random.Random(seed)  # noqa: S311 -- repeatable, no secret
    whole = notification(*(alert(fingerprint=f"{number:016x}") for number in range(2)))
    for _ in range(count):
        yield chance.choice((_without, _spoiled, _elsewhere, _mislabelled, _cut, _noise))(whole, chance)


def _without(whole: dict[str, Any], chance: random.Random) -> bytes:
    content = copy.deepcopy(whole)
    if chance.random() < 0.5:
        del content[chance.choice(("version", "status", "groupKey", "alerts"))]
    else:
        del chance.choice(content["alerts"])[chance.choice(("status", "labels", "startsAt", "fingerprint"))]
    return text(content)


def _spoiled(whole: dict[str, Any], chance: random.Random) -> bytes:
    content = copy.deepcopy(whole)
    name, wrong = chance.choice(tuple(_WRONG.items()))
    place = content if name in content and chance.random() < 0.5 else chance.choice(content["alerts"])
    (place if name in place else content)[name] = chance.choice(wrong)
    return text(content)


def _elsewhere(whole: dict[str, Any], chance: random.Random) -> bytes:
    content = copy.deepcopy(whole)
    for each in content["alerts"]:
        each["labels"]["node"] = chance.choice(("n2", "", "N1", "n1 ", "n" * 1000, "\u202en1", "n1\x00"))
        each["labels"][f"more{chance.random()}"] = chance.choice(("", "$(reboot)", "../../x", "{{ 7*7 }}", "\x1b[2J"))
    return text(content)


def _mislabelled(whole: dict[str, Any], chance: random.Random) -> bytes:
    content = copy.deepcopy(whole)
    for each in content["alerts"]:
        name = chance.choice(("scope", "level", "app", "node"))
        if chance.random() < 0.5:
            del each["labels"][name]
        else:
            each["labels"][name] = chance.choice(("", "x" * 4000, "planet", "\n"))
            if name == "app":
                each["labels"]["scope"] = "host"
                each["labels"]["app"] = "x"
    return text(content)


def _cut(whole: dict[str, Any], chance: random.Random) -> bytes:
    good = text(whole)
    return good[: chance.randrange(len(good))]


def _noise(_whole: dict[str, Any], chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return b"[" * chance.randrange(100_000)
    return chance.randbytes(chance.randrange(200))


def text(content: Any) -> bytes:
    """Return JSON as it is sent."""
    return json.dumps(content).encode()


def requests(count: int, *, token: str, seed: int = 11) -> Iterator[bytes]:
    """Return so many HTTP requests as bytes, the same ones each time; most are right in most of what makes one."""
    chance = random.Random(seed)  # noqa: S311 -- repeatable, no secret
    for body in payloads(count, seed=seed):
        method, path = _mostly(chance, chance.choice(_METHODS), _OTHER_METHODS), chance.choice(_PATHS)
        lines = [f"{method} {path} {_mostly(chance, 'HTTP/1.1', _VERSIONS)}"]
        lines += [line for line in _headers(chance, token, body) if chance.random() < 0.95]
        request = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body
        if chance.random() < 0.1:
            place = chance.randrange(len(request))
            request = request[:place] + chance.randbytes(3) + request[place + 3 :]
        yield request


def _headers(chance: random.Random, token: str, body: bytes) -> list[str]:
    headers = [
        f"Host: {_mostly(chance, '127.0.0.1', ('elsewhere', '', '[::1'))}",
        f"Authorization: {_mostly(chance, f'Bearer {token}', ('Bearer x', 'Basic ???', 'Bearer'))}",
        f"Content-Type: {_mostly(chance, 'application/json', ('text/plain', ';', 'x' * 300))}",
        f"Content-Length: {_mostly(chance, str(len(body)), ('0', '-1', str(10**12), 'x', str(len(body) + 50)))}",
        f"Accept: {_mostly(chance, '*/*', ('application/openmetrics-text; version=9', 'x' * 3000, ''))}",
    ]
    more = (
        f"Transfer-Encoding: {chance.choice(('chunked', 'gzip', 'chunked, chunked', ''))}",
        f"X-{chance.random()}: {chr(chance.randrange(1, 256))}",
    )
    return [*headers, *chance.sample(more, 1)] if chance.random() < 0.2 else headers


def _mostly(chance: random.Random, usual: str, others: tuple[str, ...]) -> str:
    return usual if chance.random() < 0.93 else chance.choice(others)


def send(node: Managed, count: int) -> collections.Counter[str]:
    """Send so many requests, each on a connection of its own; return the statuses, "none" where there was none."""
    found: collections.Counter[str] = collections.Counter()
    for request in requests(count, token=node.token):
        found[_status(node.port, request)] += 1
    return found


def _status(port: int, request: bytes) -> str:
    answer = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            answer += part
    words = answer.split(b" ", 2)
    return words[1].decode("ascii", "replace") if len(words) > 2 and answer.startswith(b"HTTP/") else "none"
