"""A small HTTP/1.1 server for pages that monitoring systems read: GET and HEAD, keep-alive, one thread a connection.

A client that sends nothing, drips or never reads costs a thread for a limited time and delays nobody: every read has a
deadline, the work alone is limited to a few at once, and where there are too many connections the one that has waited
longest makes room.
"""

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from mempressure.web.address import ListenAddress
from mempressure.web.connection import Handler, Limits, Page, half_close

_log = logging.getLogger(__name__)
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_POLL_SECONDS = 0.2
"""How long the accepting thread takes at most to see that it is to stop."""


class Server(ThreadingHTTPServer):
    """Serves a table of pages by exact path.

    Args:
        address: where to listen; the socket is bound and listens when the constructor returns.
        pages: what answers each path. Several threads call a page at once.
        limits: what clients are given.

    Raises:
        OSError: the address cannot be resolved or bound.
    """

    # Threads that are still busy when `stop` gives up end with the process.
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    # Later Pythons share the port by default: a second exporter would start and take half of the scrapes.
    allow_reuse_port = False

    def __init__(self, address: ListenAddress, pages: Mapping[str, Page], *, limits: Limits | None = None) -> None:
        self.pages = dict(pages)
        self.limits = limits or Limits()
        self.working = threading.BoundedSemaphore(self.limits.pages_at_once)
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._waiting_since: dict[socket.socket, float | None] = {}
        self._full = False
        self._accepting = threading.Thread(target=self.serve_forever, args=(_POLL_SECONDS,), name="accept", daemon=True)
        self._both_families = not address.host and socket.has_dualstack_ipv6()
        host = "::" if self._both_families else address.host or "0.0.0.0"  # noqa: S104 -- asked for by an empty host
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, bindable = found[0]
        super().__init__(bindable, Handler)  # type: ignore[arg-type]  # typeshed knows of IPv4's pairs only

    @property
    def address(self) -> ListenAddress:
        """Return where the server listens, with the port that the kernel chose."""
        host, port = self.server_address[:2]
        return ListenAddress(str(host), port)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop in order; to be called from the main thread.

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
        self.stop()
        _log.info("stopped")

    def start(self) -> None:
        """Start to accept connections, in a thread."""
        self._accepting.start()
        _log.info("listening: address=%s", self.address)

    def stop(self) -> None:
        """Accept no more, let running requests finish, end connections that wait for one, and return."""
        self.stopping.set()
        if self._accepting.is_alive():
            self.shutdown()
        self.server_close()
        with self._changed:
            for connection, waiting_since in self._waiting_since.items():
                if waiting_since is not None:
                    half_close(connection)
            if not self._changed.wait_for(lambda: not self._waiting_since, self.limits.stop_seconds):
                _log.warning("requests cut off at stop: connections=%d", len(self._waiting_since))

    def begin_waiting(self, connection: socket.socket) -> bool:
        """Note that a connection waits for a request; false where it shall not."""
        with self._changed:
            if self.stopping.is_set() or connection not in self._waiting_since:
                return False
            self._waiting_since[connection] = time.monotonic()
            return True

    def begin_working(self, connection: socket.socket) -> None:
        """Note that a request is being answered: from here to the next `begin_waiting` nobody ends the connection."""
        with self._changed:
            if connection in self._waiting_since:
                self._waiting_since[connection] = None

    def server_bind(self) -> None:
        """Bind; unlike HTTPServer's, without asking the DNS for a name that nothing uses."""
        if self._both_families:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 -- the base class' signature
        """Register a new connection; false, which closes it, where no other one can make room."""
        with self._changed:
            has_room = len(self._waiting_since) < self.limits.connections or self._end_longest_waiting()
            if has_room:
                self._waiting_since[request] = time.monotonic()
            elif not self._full:
                _log.warning("connections refused, all are busy: limit=%d", self.limits.connections)
            self._full = not has_room
        return has_room

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._changed:
            super().shutdown_request(request)
            self._waiting_since.pop(request, None)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 -- the base class' signature
        """Log what a connection's thread died of: a line at debug where the client went away."""
        gone = isinstance(sys.exception(), OSError)
        _log.log(
            logging.DEBUG if gone else logging.ERROR, "connection failed: client=%s", client_address, exc_info=not gone
        )

    def _end_longest_waiting(self) -> bool:
        waiting = {connection: since for connection, since in self._waiting_since.items() if since is not None}
        if not waiting:
            return False
        longest = min(waiting, key=waiting.__getitem__)
        del self._waiting_since[longest]
        half_close(longest)
        return True
