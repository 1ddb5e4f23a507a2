"""Connections to the order socket: the peer check, reading orders, carrying them out one at a time, and answering.

Imported with the first connection: a worker that is given no order need not hold it (40 KB). Orders are carried out in
threads of their own, so that a slow one delays neither the state nor a measurement. Answers are remembered by the
order's id: repeating an order never repeats an act.
"""

import json
import logging
import selectors
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mempressure.act.orders import MAX_LINE_BYTES, Order, parse_order
from mempressure.measure.descriptor import OwnDescriptor
from mempressure.worker.order_socket import CONNECTIONS, OrderSocket

_log = logging.getLogger(__name__)

CONNECTION_SECONDS = 10.0
"""How long a connection may take to send its order."""
REMEMBERED_ORDERS = 256


class Waiting:
    """A connection that has not sent its whole order yet, what came of it, and since when it is open (monotonic)."""

    __slots__ = ("own", "received", "since")

    def __init__(self, connection: socket.socket) -> None:
        self.own = OwnDescriptor(connection)
        self.received = bytearray()
        self.since = time.monotonic()


class OrderConnections:
    """Accepts connections, reads one order from each, and answers it.

    Args:
        order_socket: where connections come from.
        selector: whose events are given to `handle`.
        trusted: ids of the users whose orders are taken.
        carry_out: carries out an order; returns its answer without the id, and what to do once the answer is sent.
        publish: publishes a state measured now.
        publish_soon: called after an order was carried out.
    """

    def __init__(
        self,
        order_socket: OrderSocket,
        *,
        selector: selectors.BaseSelector,
        trusted: set[int],
        carry_out: Callable[[Order], tuple[dict[str, Any], Callable[[], None] | None]],
        publish: Callable[[], None],
        publish_soon: Callable[[], None],
    ) -> None:
        self._socket = order_socket
        self._selector = selector
        self._trusted = trusted
        self._act = carry_out
        self._publish = publish
        self._publish_soon = publish_soon
        self._order_lock = threading.Lock()
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def handle(self, key: selectors.SelectorKey) -> None:
        """Handle an event of the selector: a connection that waits, or data on one."""
        if key.fileobj is self._socket.listener:
            self._accept()
        elif key.data is not None:
            self._read(key.data)

    def open(self) -> list[Waiting]:
        """Return the connections that have not sent a whole order yet."""
        return [key.data for key in self._selector.get_map().values() if key.data is not None]

    def close_idle(self, now: float) -> None:
        """Close connections that did not send their order in time; `now` is monotonic."""
        for waiting in self.open():
            if now - waiting.since > CONNECTION_SECONDS:
                self._drop(waiting)

    def drop_lost(self) -> None:
        """Forget connections that others closed, whose numbers may be other files' by now."""
        for waiting in self.open():
            if not waiting.own.is_ours():
                self._drop(waiting)

    def close(self) -> None:
        """Close every connection."""
        for waiting in self.open():
            self._drop(waiting)

    def _accept(self) -> None:
        connection = self._socket.accept()
        if connection is None:
            return
        connection.setblocking(False)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        if uid not in self._trusted:
            _log.warning(
                "order refused: uid=%d is neither root, this worker's own nor in MEMPRESSURE_TRUSTED_UIDS", uid
            )
            connection.close()
            return
        waiting = self.open()
        if len(waiting) >= CONNECTIONS:
            # An honest client sends at once, so the connection that has been open longest is closed.
            self._drop(min(waiting, key=lambda known: known.since))
        self._selector.register(connection, selectors.EVENT_READ, Waiting(connection))

    def _read(self, waiting: Waiting) -> None:
        received = waiting.received
        try:
            part = waiting.own.file.recv(MAX_LINE_BYTES) if waiting.own.is_ours() else b""
        except OSError:
            part = b""
        received += part
        if part and not received.endswith(b"\n") and len(received) <= MAX_LINE_BYTES:
            return
        if not received.endswith(b"\n") or len(received) > MAX_LINE_BYTES:
            if received:  # what sends nothing only looked whether an agent listens
                reason = "is cut off" if len(received) <= MAX_LINE_BYTES else f"is longer than {MAX_LINE_BYTES}"
                _log.debug("order ignored: its line of %d bytes %s", len(received), reason)
            self._drop(waiting)
            return
        self._selector.unregister(waiting.own.file)
        waiting.own.file.settimeout(CONNECTION_SECONDS)
        self._dispatch(waiting.own, bytes(received))

    def _dispatch(self, connection: OwnDescriptor[socket.socket], line: bytes) -> None:
        try:
            order = parse_order(line)
            if order.op == "measure":
                self._publish()
                _answer(connection, {"id": order.id})
                return
            thread = threading.Thread(
                target=self._carry_out, args=(connection, order), name="mempressure-order", daemon=True
            )
            thread.start()
        except Exception as error:  # the sender needs an answer
            _answer(connection, {"id": None, "error": f"{error}"})
            if not isinstance(error, ValueError):
                raise

    def _carry_out(self, connection: OwnDescriptor[socket.socket], order: Order) -> None:
        afterwards = None
        with self._order_lock:
            answer = self._answers.get(order.id)
            if answer is None:
                try:
                    result, afterwards = self._act(order)
                    answer = {"id": order.id, **result}
                except Exception as error:  # noqa: BLE001 -- the sender needs an answer
                    _log.exception("order failed: id=%s op=%s", order.id, order.op)
                    answer = {"id": order.id, "error": f"{type(error).__name__}: {error}"}
                self._answers[order.id] = answer
                while len(self._answers) > REMEMBERED_ORDERS:
                    self._answers.popitem(last=False)
        _answer(connection, answer)
        if afterwards is not None:
            afterwards()
        self._publish_soon()

    def _drop(self, waiting: Waiting) -> None:
        self._selector.unregister(waiting.own.file)
        waiting.own.close()


def _answer(connection: OwnDescriptor[socket.socket], answer: dict[str, Any]) -> None:
    with suppress(OSError):  # the client is gone; the answer is remembered
        if connection.is_ours():
            connection.file.sendall(json.dumps(answer).encode() + b"\n")
    connection.close()
