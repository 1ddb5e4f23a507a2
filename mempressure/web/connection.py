"""One client's connection: requests read under deadlines and limits, answered by pages."""

import io
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mempressure.web.server import Server

TEXT = "text/plain; charset=utf-8"

_log = logging.getLogger(__name__)
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 1 << 20


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


class Handler(BaseHTTPRequestHandler):
    """One connection, in its own thread."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # the base's, HTTP/0.9, would answer errors without a status line
    error_content_type = TEXT
    error_message_format = "%(code)d %(message)s\n"
    server: "Server"

    def setup(self) -> None:
        """Wrap the socket in a stream with deadlines."""
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
        """Answer one request, or end the connection."""
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
        """Do not ask for a body: none is ever wanted, and the answer itself says so."""
        return True

    def version_string(self) -> str:
        """Return what the Server header says."""
        return "mempressure"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class' name
        """Log a request for whoever looks closely."""
        _log.debug("request: client=%s " + format, self.client_address[0], *args)


def _plain(status: HTTPStatus, *headers: tuple[str, str]) -> Response:
    return Response(status, TEXT, f"{status.value} {status.phrase}\n".encode(), headers)


def half_close(connection: socket.socket) -> None:
    """Let the connection's thread read an end of file. Not `connection.shutdown`: an SSLSocket's drops its TLS."""
    with suppress(OSError):  # the client may have reset it
        socket.socket.shutdown(connection, socket.SHUT_RD)
