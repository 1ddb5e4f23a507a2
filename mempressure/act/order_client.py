"""Client of the agents in the workers: sends one order over a worker's Unix socket and returns the answer.

An order is one JSON object on a line, its answer another. It carries an id: an agent that has seen it answers with
the result it remembers and does nothing again.

    {"id": "c12.0", "op": "stop", "package": "pandas", "idle_for": {"pandas": 60.0}}
    {"id": "c12.0", "reclaimed_bytes": 73400320, "skipped": null}
"""

import errno
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from mempressure.act.orders import MAX_LINE_BYTES
from mempressure.errors import AgentUnreachableError
from mempressure.measure.descriptor import OwnDescriptor

_RETRY_SECONDS = 0.02


def give_order(
    path: Path, order: Mapping[str, Any], *, owner: int | None = None, timeout: float = 5.0
) -> dict[str, Any]:
    """Send one order to the agent that listens at `path` and return its answer.

    Args:
        path: the agent's socket.
        order: with at least `id` and `op`.
        owner: the uid that must be listening: the owner of the directory can put a link to another's socket there.
        timeout: seconds for all of it.

    Raises:
        AgentUnreachableError: no process listens, it took too long, the answer makes no sense, or the agent refused.
    """
    deadline = time.monotonic() + timeout
    try:
        with closing(OwnDescriptor(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))) as own:
            connection = own.file
            connection.settimeout(timeout)
            _connect(connection, path, deadline)
            _require_peer(connection, path, owner)
            connection.sendall(json.dumps(order).encode() + b"\n")
            line = _line(own, deadline)
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
        raise AgentUnreachableError(f"agent at {path}: {reason} ({order.get('op')}, {timeout:g} s)") from error
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise AgentUnreachableError(f"agent at {path}: answered {line!r:.100}, which is no JSON line") from error
    # An agent that cannot read an order does not know its id.
    ids = (None, order.get("id")) if isinstance(answer, dict) and "error" in answer else (order.get("id"),)
    if not isinstance(answer, dict) or answer.get("id") not in ids:
        raise AgentUnreachableError(f"agent at {path}: answered {line!r:.100}, not order {order.get('id')!r}")
    if "error" in answer:
        raise AgentUnreachableError(f"agent at {path}: refused {order.get('op')}: {answer['error']}")
    return answer


def _connect(connection: socket.socket, path: Path, deadline: float) -> None:
    """Connect, again where the agent has more callers waiting than it listens for: it takes them each within a tick."""
    while (refused := connection.connect_ex(os.fspath(path))) == errno.EAGAIN and time.monotonic() < deadline:
        time.sleep(_RETRY_SECONDS)
    if refused == errno.EAGAIN:
        raise TimeoutError
    if refused:
        raise OSError(refused, os.strerror(refused))


def _require_peer(connection: socket.socket, path: Path, owner: int | None) -> None:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    if owner is not None and uid != owner:
        raise AgentUnreachableError(f"agent at {path}: uid {uid} listens there, not {owner}, whose directory it is in")


def _line(own: OwnDescriptor[socket.socket], deadline: float) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        own.file.settimeout(max(0.001, deadline - time.monotonic()))
        if not own.is_ours():
            raise ConnectionAbortedError(None, "this process has closed the connection, as a daemon closes all")
        part = own.file.recv(MAX_LINE_BYTES)
        if not part:
            raise ConnectionResetError(None, "closed the connection without an answer; the worker may have ended")
        received += part
        if len(received) > MAX_LINE_BYTES:
            raise ConnectionAbortedError(None, f"answered more than {MAX_LINE_BYTES} bytes")
    return bytes(received)
