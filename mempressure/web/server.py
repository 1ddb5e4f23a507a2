"""A small HTTP/1.1 server for pages that monitoring systems read: GET and HEAD, keep-alive, one thread a connection.

A client that sends nothing, drips or never reads costs a thread for a limited time and delays nobody: every read has a
deadline, the work alone is limited to a few at once, and where there are too many connections the one that has waited
longest makes room.
"""

import io
import logging
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple

from mempressure.errors import ConfigurationError

TEXT = "text/plain; charset=utf-8"

_log = logging.getLogger(__name__)
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_POLL_SECONDS = 0.2
"""How long the accepting thread takes at most to see that it is to stop."""
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 1 << 20
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]*)):(?P<port>\d{1,5})", re.ASCII)


class ListenAddress(NamedTuple):
    """Where to listen. The host "" means every address of the machine, the port 0 one that the kernel chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen_address(text: str) -> ListenAddress:
    """Read HOST:PORT, :PORT or [IPv6]:PORT.

    Raises:
        ConfigurationError: it is none of them; the message names it.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535 or (match["v6"] and not _is_ipv6(match["v6"])):
        raise ConfigurationError(
            f"listen address {text!r} cannot be used; send HOST:PORT such as 127.0.0.1:10061, :10061 or [::1]:10061"
        )
    return ListenAddress(match["v6"] or match["name"], int(match["port"]))


class Request(NamedTuple):
    """What a page may look at; header names are found in any case."""

    path: str
    query: str
    headers: Message


class Response(NamedTuple):
    """What a page answers."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Page = Callable[[Request], Response]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server gives its clients, in seconds, bytes and numbers."""

    connections: int = 128
    pages_at_once: int = 4
    request_seconds: float = 10.0
    """For a request to arrive whole, from its first byte on; a new connection has as long for that first byte."""
    request_bytes: int = 32 << 10
    response_seconds: float = 10.0
    """For a client to take a response."""
    idle_seconds: float = 120.0
    """Between two requests: more than scrape intervals usually are."""
    stop_seconds: float = 10.0
    """For running requests to finish once the server is told to stop."""


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
        super().__init__(bindable, _Handler)  # type: ignore[arg-type]  # typeshed knows of IPv4's pairs only

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
                    _half_close(connection)
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
        _half_close(longest)
        return True


class _RequestTooLargeError(OSError):
    """A request's line and headers are larger than allowed."""


class _Stream(io.RawIOBase):
    """A socket whose reads end at a deadline, however slowly the bytes drip in, and after a number of bytes."""

    def __init__(self, connection: socket.socket, *, write_seconds: float) -> None:
        self._connection = connection
        self._write_seconds = write_seconds
        self._deadline = 0.0
        self._allowance = 0
        self.ended = False

    def expect(self, *, seconds: float, size: int) -> None:
        """Allow reading for so long from now, and so many bytes."""
        self._deadline = time.monotonic() + seconds
        self._allowance = size

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        if self._allowance <= 0:
            raise _RequestTooLargeError
        self._connection.settimeout(remaining)
        count = self._connection.recv_into(buffer)
        self._allowance -= count
        self.ended = count == 0
        return count

    def write(self, data: Any) -> int:
        self._connection.settimeout(self._write_seconds)
        self._connection.sendall(data)
        return len(data)


class _Handler(BaseHTTPRequestHandler):
    """One connection, in its own thread."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # the base's, HTTP/0.9, would answer errors without a status line
    error_content_type = TEXT
    error_message_format = "%(code)d %(message)s\n"
    server: Server

    def setup(self) -> None:
        limits = self.server.limits
        self.connection = self.request
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = _Stream(self.connection, write_seconds=limits.response_seconds)
        self._input = self.rfile = io.BufferedReader(self._stream)
        self.wfile = io.BufferedWriter(self._stream)
        self._next_seconds = limits.request_seconds
        # An error can be answered before a request was understood.
        self.requestline, self.command, self.request_version = "", "", self.protocol_version

    def handle_one_request(self) -> None:
        self.close_connection = True
        try:
            unread = self._converse()
            self.wfile.flush()
            if unread:
                self._discard_rest()
        except OSError as error:
            _log.debug("connection ended: client=%s error=%r", self.client_address, error)
            self.close_connection = True

    def _converse(self) -> bool:
        """Answer one request; return whether the client may still be sending what nobody will read."""
        limits = self.server.limits
        if not self.server.begin_waiting(self.request):
            return False
        self._stream.expect(seconds=self._next_seconds, size=limits.request_bytes)
        if not self._input.peek(1):
            return False
        self._stream.expect(seconds=limits.request_seconds, size=limits.request_bytes)
        try:
            self.raw_requestline = self.rfile.readline()
            understood = self.parse_request()
        except _RequestTooLargeError:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return True
        if not understood or self._stream.ended:  # refused; or cut short, by the client or by `stop`
            self.close_connection = True
            return not understood
        self.server.begin_working(self.request)
        has_body = "Transfer-Encoding" in self.headers or self.headers.get("Content-Length", "0") != "0"
        self.close_connection |= has_body
        self._send(self._response())
        self._next_seconds = limits.idle_seconds
        return has_body

    def _response(self) -> Response:
        path, _, query = self.path.partition("?")
        if self.command not in ("GET", "HEAD"):
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
        page = self.server.pages.get(path)
        if page is None:
            return _plain(HTTPStatus.NOT_FOUND)
        if not self.server.working.acquire(timeout=self.server.limits.request_seconds):
            _log.warning("page not served, others hang: path=%s", path)
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            return page(Request(path, query, self.headers))
        except Exception:  # noqa: BLE001 -- whatever a page raises is logged and answered; the server goes on
            _log.exception("page failed: path=%s", path)
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        finally:
            self.server.working.release()

    def _send(self, response: Response) -> None:
        self.close_connection |= self.server.stopping.is_set()
        self.send_response(response.status)
        for name, value in response.headers:
            self.send_header(name, value)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def _discard_rest(self) -> None:
        # A socket that is closed on unread data resets the connection, and the client may lose the response.
        self.connection.shutdown(socket.SHUT_WR)
        self._stream.expect(seconds=_LINGER_SECONDS, size=_LINGER_BYTES)
        while self._input.read1(1 << 16):
            pass

    def handle_expect_100(self) -> bool:
        return True  # no body is ever wanted: the answer itself says so

    def version_string(self) -> str:
        return "mempressure"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class' name
        _log.debug("request: client=%s " + format, self.client_address[0], *args)


def _plain(status: HTTPStatus, *headers: tuple[str, str]) -> Response:
    return Response(status, TEXT, f"{status.value} {status.phrase}\n".encode(), headers)


def _half_close(connection: socket.socket) -> None:
    """Let the connection's thread read an end of file. Not `connection.shutdown`: an SSLSocket's drops its TLS."""
    with suppress(OSError):  # the client may have reset it
        socket.socket.shutdown(connection, socket.SHUT_RD)


def _is_ipv6(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return False
    return True
