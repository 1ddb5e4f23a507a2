"""The HTTP/1.1 server of both services: keep-alive, TLS, one thread for each connection.

A client that sends nothing, sends slowly, does not finish its handshake or never reads occupies one thread for a
limited time and delays no other client: every read and write has a deadline. When all connections are in use, the one
that has waited longest for its request is closed to make room.
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
_ACCEPT_RETRY_SECONDS = 0.05
"""Between two attempts to accept a connection when the process is out of descriptors or memory."""


class Server:
    """Accepts connections and answers their requests.

    Args:
        listeners: the sockets that clients connect to; `stop` closes them.
        answer: called with each request, from several threads at once.
        limits: on connections, sizes and times.
        config: the web configuration file, if there is one.
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
        # A daemon, as the clients' threads are: those still busy when `stop` gives up end with the process.
        self._accepting = threading.Thread(target=self._accept, name="accept", daemon=True)

    def run(self, *, on_stop: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT, then `stop`; call it from the main thread.

        Args:
            on_stop: called when the signal arrives.

        Raises:
            RuntimeError: the accepting thread ended by itself.
        """
        # Waited for rather than handled: a signal handler may interrupt its own thread while that holds a lock.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        self.start()
        while signal.sigtimedwait(_STOP_SIGNALS, 1.0) is None:
            if not self._accepting.is_alive():
                raise RuntimeError("the thread that accepts connections ended")
        _log.info("stopping")
        on_stop()
        self.stop()

    def start(self) -> None:
        """Start accepting connections, in a thread of its own."""
        self._accepting.start()
        for address in self.addresses:
            _log.info("listening: address=%s", address)

    def stop(self) -> None:
        """Stop accepting, let requests that have arrived finish, close idle connections, and return."""
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

    def handshake(self, connection: Connection) -> bool:
        """Do the TLS handshake if the web configuration asks for TLS; return whether the connection is encrypted.

        Raises:
            OSError: it failed or took too long, or the client's certificate is not allowed.
        """
        tls = self._config.current().tls if self._config else None
        if tls is None:
            return False
        with self._changed:  # `end_reading` must not meet the old socket, which has just lost its descriptor
            connection.socket = tls.context.wrap_socket(
                connection.socket, server_side=True, do_handshake_on_connect=False
            )
        tls.handshake(connection.socket, seconds=self.limits.request_seconds)
        return True

    def extra_headers(self) -> tuple[tuple[str, str], ...]:
        """Return the headers that the web configuration adds to every response."""
        return self._config.current().headers if self._config else ()

    def begin_waiting(self, connection: Connection) -> bool:
        """Record that a connection waits for a request; return False where it is to be closed instead."""
        with self._changed:
            if connection not in self._connections:
                return False
            if self.stopping.is_set() and not connection.is_due:
                connection.end_reading()  # what has arrived can still be read, and is answered
            connection.waiting_since = time.monotonic()
            return True

    def begin_working(self, connection: Connection) -> None:
        """Record that a request is being answered: the connection is not ended until the next `begin_waiting`."""
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
            # Clients that connected before the stop are served.
            for _ in range(BACKLOG):
                if not self._take(listener):
                    break
            listener.close()

    def _take(self, listener: socket.socket) -> bool:
        """Accept a connection and start its thread; return False where there is none, or no room for it."""
        try:
            accepted, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:  # out of descriptors or memory: close an idle connection, and let this client wait
            with self._changed:
                self._end_longest_waiting()
            self._log_refusal(f"{error.strerror}")
            time.sleep(_ACCEPT_RETRY_SECONDS)
            return False
        connection = Connection(accepted, address)
        if not self._admit(connection):
            accepted.close()
            return False
        try:
            threading.Thread(target=self._serve, args=(connection,), name="client", daemon=True).start()
        except RuntimeError as error:  # the system is out of threads
            self._log_refusal(str(error))
            self._close(connection)
            return False
        return True

    def _admit(self, connection: Connection) -> bool:
        with self._changed:
            if len(self._connections) >= self.limits.connections and not self._end_longest_waiting():
                self._log_refusal(f"all {self.limits.connections} are busy")
                return False
            self._connections.add(connection)
            self._full = False
            return True

    def _log_refusal(self, reason: str) -> None:
        """Log that connections are refused, once until one is accepted again."""
        if not self._full:
            self._full = True
            _log.warning("connections refused: reason=%r limit=%d", reason, self.limits.connections)

    def _serve(self, connection: Connection) -> None:
        try:
            Handler(connection, self).run()
        except (OSError, EOFError) as error:  # the client closed or was too slow, or its handshake failed
            _log.debug("connection failed: client=%s error=%r", connection.address, error)
        except Exception:  # noqa: BLE001 -- an error of one connection is logged; the others go on
            _log.exception("connection failed: client=%s", connection.address)
        finally:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        with suppress(OSError):  # the client closed it first
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
