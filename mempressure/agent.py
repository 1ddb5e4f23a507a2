"""The agent: one daemon thread in a worker that publishes its state each second and takes orders on a socket.

Orders are carried out one after the other in threads of their own, so a slow one delays neither the state nor a
measurement. Answers are remembered by the order's id: asking again never repeats an act.
"""

import atexit
import json
import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from mempressure import state
from mempressure.client import MAX_LINE_BYTES, socket_path
from mempressure.directories import own_runtime_directory
from mempressure.errors import MempressureError
from mempressure.node import remove_dead
from mempressure.orders import Order, parse_order
from mempressure.state import WorkerState

_log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
PUBLISH_AT_MOST_EVERY = 0.1
"""Seconds between two publications asked for by loads and unloads: a burst of them costs ten ticks a second at most."""
CONNECTIONS = 16
CONNECTION_SECONDS = 10.0
"""How long a connection may take to send its order."""
REMEMBERED_ORDERS = 256


class AgentSubject(Protocol):
    """What an agent speaks for: the loader."""

    def sample(self, *, thorough: bool) -> WorkerState:
        """Measure the worker and return its state; `thorough` measures however recent the last measurement is."""

    def carry_out(self, order: Order) -> tuple[dict[str, Any], Callable[[], None] | None]:
        """Carry out an order; return its answer without the id, and what to do once the answer is sent."""


class Agent:
    """Publishes what `subject` samples, and gives it the orders that arrive.

    Args:
        subject: the loader.
        runtime: the runtime directory.
        trusted_uids: users besides root and this process' own that may give orders.
    """

    def __init__(self, subject: AgentSubject, *, runtime: Path, trusted_uids: tuple[int, ...] = ()) -> None:
        self._subject = subject
        self._runtime = runtime
        self._trusted = {0, os.geteuid(), *trusted_uids}
        self._order_lock = threading.Lock()
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._problem = ""

    def start(self) -> bool:
        """Start the thread; return False, having logged why, where the runtime directory cannot be used."""
        self._pid = os.getpid()
        try:
            self._open()
        except (OSError, MempressureError) as error:
            _log.error("agent not started, this worker is not managed: reason=%r", str(error))
            return False
        self._thread = threading.Thread(target=self._run, name="mempressure-agent", daemon=True)
        self._thread.start()
        atexit.register(self.stop)
        return True

    def publish_soon(self) -> None:
        """Have the state published before the next tick: something was loaded or unloaded."""
        if self._thread is not None and os.getpid() == self._pid:
            with suppress(OSError):  # the pipe is full or closed: a publication is coming, or none will be
                os.write(self._wake_write, b".")

    def stop(self) -> None:
        """End the thread and remove the state file and the socket; does nothing in a forked child."""
        if self._thread is None or os.getpid() != self._pid:
            return
        self._stopping = True
        self.publish_soon()
        self._thread.join(2 * TICK_SECONDS)
        self._thread = None
        atexit.unregister(self.stop)
        self._withdraw()

    def forget(self) -> None:
        """Close what a forked child inherited, leaving its parent's files alone."""
        if self._thread is not None:
            self._thread = None
            atexit.unregister(self.stop)
            self._close()

    def _open(self) -> None:
        self._directory = own_runtime_directory(self._runtime)
        remove_dead(self._directory)
        self._state_path = self._directory / f"{self._pid}.state"
        self._socket_path = socket_path(self._directory, self._pid)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._listen()

    def _listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        with suppress(FileNotFoundError):
            os.unlink(self._socket_path)
        self._listener.bind(os.fspath(self._socket_path))
        # Other users may connect only if some are trusted; who they are is checked again for each connection.
        os.chmod(self._socket_path, 0o666 if self._trusted - {0, os.geteuid()} else 0o600)
        self._listener.listen(CONNECTIONS)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _close(self) -> None:
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _withdraw(self) -> None:
        self._close()
        with suppress(FileNotFoundError):
            os.unlink(self._socket_path)
        state.withdraw(self._state_path)

    def _run(self) -> None:
        next_tick = time.monotonic()
        published = 0.0
        soon = False
        while not self._stopping:
            due = published + PUBLISH_AT_MOST_EVERY if soon else next_tick
            events = self._selector.select(max(0.0, due - time.monotonic()))
            for key, _ in events:
                if key.fileobj == self._wake_read:
                    soon = self._drained() or soon
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key)
            now = time.monotonic()
            if now >= next_tick or (soon and now >= published + PUBLISH_AT_MOST_EVERY):
                self._publish(thorough=soon)
                self._close_idle(now)
                published, soon = now, False
                next_tick = max(next_tick + TICK_SECONDS, now) if now >= next_tick else next_tick

    def _drained(self) -> bool:
        with suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass
        return True

    def _publish(self, *, thorough: bool) -> None:
        try:
            try:
                state.publish(self._subject.sample(thorough=thorough), self._state_path)
            except FileNotFoundError:  # somebody cleaned the runtime directory
                self._selector.unregister(self._listener)
                self._listener.close()
                self._directory = own_runtime_directory(self._runtime)
                self._listen()
                state.publish(self._subject.sample(thorough=thorough), self._state_path)
            self._problem = ""
        except (OSError, MempressureError) as error:
            if str(error) != self._problem:  # once, not each second
                self._problem = str(error)
                _log.warning("state not published: path=%s reason=%r", self._state_path, self._problem)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the client is gone already
            return
        if len(self._selector.get_map()) - 2 >= CONNECTIONS:
            connection.close()
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
        self._selector.register(connection, selectors.EVENT_READ, (bytearray(), time.monotonic()))

    def _read(self, key: selectors.SelectorKey) -> None:
        connection = key.fileobj
        assert isinstance(connection, socket.socket)  # noqa: S101 -- for mypy: only sockets are registered with data
        received, _ = key.data
        try:
            part = connection.recv(MAX_LINE_BYTES)
        except OSError:
            part = b""
        received += part
        if part and not received.endswith(b"\n") and len(received) <= MAX_LINE_BYTES:
            return
        self._selector.unregister(connection)
        if not received.endswith(b"\n") or len(received) > MAX_LINE_BYTES:
            connection.close()
            return
        connection.setblocking(True)
        connection.settimeout(CONNECTION_SECONDS)
        self._take(connection, bytes(received))

    def _take(self, connection: socket.socket, line: bytes) -> None:
        try:
            order = parse_order(line)
        except ValueError as error:
            _answer(connection, {"id": None, "error": str(error)})
            return
        if order.op == "measure":
            self._publish(thorough=True)
            _answer(connection, {"id": order.id})
            return
        thread = threading.Thread(
            target=self._carry_out, args=(connection, order), name="mempressure-order", daemon=True
        )
        thread.start()

    def _carry_out(self, connection: socket.socket, order: Order) -> None:
        afterwards = None
        with self._order_lock:
            answer = self._answers.get(order.id)
            if answer is None:
                try:
                    result, afterwards = self._subject.carry_out(order)
                    answer = {"id": order.id, **result}
                except Exception as error:  # noqa: BLE001 -- whatever it was, whoever ordered must hear of it
                    _log.exception("order failed: id=%s op=%s", order.id, order.op)
                    answer = {"id": order.id, "error": f"{type(error).__name__}: {error}"}
                self._answers[order.id] = answer
                while len(self._answers) > REMEMBERED_ORDERS:
                    self._answers.popitem(last=False)
        _answer(connection, answer)
        if afterwards is not None:
            afterwards()
        self.publish_soon()

    def _close_idle(self, now: float) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data is not None and now - key.data[1] > CONNECTION_SECONDS:
                self._selector.unregister(key.fileobj)
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()


def _answer(connection: socket.socket, answer: dict[str, Any]) -> None:
    with suppress(OSError), connection:  # whoever asked is gone; the answer is remembered
        connection.sendall(json.dumps(answer).encode() + b"\n")
