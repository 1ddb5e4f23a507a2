"""A small HTTP/1.1 server for both services: keep-alive, TLS, one thread a connection.

A client that sends nothing, drips, stays in its handshake or never reads costs a thread for a limited time and delays
nobody: every read has a deadline, and where there are too many connections the one that has waited longest for its
request to arrive makes room.
"""

import logging
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from mempressure.http.connection import Connection, Handler, Limits
from mempressure.http.listening import BACKLOG, addresses
from mempressure.http.messages import Answer

if TYPE_CHECKING:
    from mempressure.http.config import WebConfig

_log = logging.getLogger(__name__)
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_BREATH_SECONDS = 0.05
"""Between two attempts where the process has no descriptor left for a connection."""


class Server:
    """Answers requests.

    Args:
        listeners: where clients connect; closed by `stop`.
        answer: what answers each request. Several threads call it at once.
        limits: what clients are given.
        config: the web configuration file, where there is one.
    """

    def __init__(
        self,
        listeners: Iterable[socket.socket],
        answer: Answer,
        *,
        limits: Limits | None = None,
        config: "WebConfig | None" = None,
    ) -> None:
        self.answer = answer
        self.limits = limits or Limits()
        self.stopping = threading.Event()
        self._config = config
        self._listeners = list(listeners)
        self.addresses = addresses(self._listeners)
        self._changed = threading.Condition()
        self._connections: set[Connection] = set()
        self._full = False
        self._wake, self._woken = socket.socketpair()
        # Threads that are still busy when `stop` gives up end with the process.
        self._accepting = threading.Thread(target=self._accept, name="accept", daemon=True)

    def run(self, *, on_stop: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT, then stop in order; to be called from the main thread.

        Args:
            on_stop: called when the signal arrives.

        Raises:
            RuntimeError: the accepting thread ended by itself.
        """
        # Waited for instead of handled: a handler may run while its own thread holds a lock that it needs.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        self.start()
        while signal.sigtimedwait(_STOP_SIGNALS, 1.0) is None:
            if not self._accepting.is_alive():
                raise RuntimeError("the thread that accepts connections ended")
        _log.info("stopping")
        on_stop()
        self.stop()

    def start(self) -> None:
        """Start to accept connections, in a thread."""
        self._accepting.start()
        for address in self.addresses:
            _log.info("listening: address=%s", address)

    def stop(self) -> None:
        """Accept no more, let requests that came finish, end connections that wait for one, and return."""
        self.stopping.set()
        self._wake.close()
        if self._accepting.is_alive():
            self._accepting.join()
        with self._changed:
            self._end_waiting(lambda connection: not connection.is_due)
            if not self._changed.wait_for(lambda: not self._connections, self.limits.arrival_seconds):
                self._end_waiting(lambda _: True)
            if not self._changed.wait_for(lambda: not self._connections, self.limits.stop_seconds):
                _log.warning("requests cut off at stop: connections=%d", len(self._connections))

    def shake_hands(self, connection: Connection) -> bool:
        """Secure a connection where the web configuration asks for TLS; return whether it did.

        Raises:
            OSError: the client cannot, or took too long, or may not connect.
        """
        tls = self._config.current().tls if self._config else None
        if tls is None:
            return False
        with self._changed:  # nobody is to end the reading of a socket that has just lost its descriptor
            connection.socket = tls.context.wrap_socket(
                connection.socket, server_side=True, do_handshake_on_connect=False
            )
        tls.shake_hands(connection.socket, seconds=self.limits.request_seconds)
        return True

    def extra_headers(self) -> tuple[tuple[str, str], ...]:
        """Return the headers that the web configuration adds to every answer."""
        return self._config.current().headers if self._config else ()

    def begin_waiting(self, connection: Connection) -> bool:
        """Note that a connection waits for a request; false where it shall not."""
        with self._changed:
            if connection not in self._connections:
                return False
            if self.stopping.is_set() and not connection.is_due:
                connection.end_reading()  # what has arrived can still be read, and is answered
            connection.waiting_since = time.monotonic()
            return True

    def begin_working(self, connection: Connection) -> None:
        """Note that a request is being answered: from here to the next `begin_waiting` nobody ends the connection."""
        with self._changed:
            connection.is_due = False
            connection.waiting_since = None

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector, self._woken:
            selector.register(self._woken, selectors.EVENT_READ)
            for listener in self._listeners:
                listener.setblocking(False)
                selector.register(listener, selectors.EVENT_READ)
            while not self.stopping.is_set():
                for key, _ in selector.select():
                    if key.fileobj is not self._woken:
                        self._take(key.fileobj)  # type: ignore[arg-type]  # what was registered
        for listener in self._listeners:
            # Whoever connected before we stopped listening is served.
            for _ in range(BACKLOG):
                if not self._take(listener):
                    break
            listener.close()

    def _take(self, listener: socket.socket) -> bool:
        """Accept a connection and start its thread; false where there is none, or no room."""
        try:
            accepted, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:  # out of descriptors or memory: somebody makes room, and the client waits
            with self._changed:
                self._end_longest_waiting()
            self._tell_full(f"{error.strerror}")
            time.sleep(_BREATH_SECONDS)
            return False
        connection = Connection(accepted, address)
        if not self._admit(connection):
            accepted.close()
            return False
        try:
            threading.Thread(target=self._serve, args=(connection,), name="client", daemon=True).start()
        except RuntimeError as error:  # no thread to be had
            self._tell_full(str(error))
            self._close(connection)
            return False
        return True

    def _admit(self, connection: Connection) -> bool:
        with self._changed:
            if len(self._connections) >= self.limits.connections and not self._end_longest_waiting():
                self._tell_full(f"all {self.limits.connections} are busy")
                return False
            self._connections.add(connection)
            self._full = False
            return True

    def _tell_full(self, reason: str) -> None:
        if not self._full:
            self._full = True
            _log.warning("connections refused: reason=%r limit=%d", reason, self.limits.connections)

    def _serve(self, connection: Connection) -> None:
        try:
            Handler(connection, self).run()
        except (OSError, EOFError) as error:  # the client went away, or its handshake failed
            _log.debug("connection failed: client=%s error=%r", connection.address, error)
        except Exception:  # noqa: BLE001 -- one connection's; the others go on
            _log.exception("connection failed: client=%s", connection.address)
        finally:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        with suppress(OSError):  # the client was faster
            connection.socket.shutdown(socket.SHUT_WR)
        connection.socket.close()
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def _end_waiting(self, which: Callable[[Connection], bool]) -> None:
        for connection in self._connections:
            if connection.waiting_since is not None and which(connection):
                connection.end_reading()

    def _end_longest_waiting(self) -> bool:
        waiting = {connection: connection.waiting_since for connection in self._connections}
        times = {connection: since for connection, since in waiting.items() if since is not None}
        if not times:
            return False
        longest = min(times, key=times.__getitem__)
        self._connections.remove(longest)
        longest.end_reading()
        return True
