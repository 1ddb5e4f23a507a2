"""One client's connection: its handshake and requests, read under deadlines and limits, and the answers."""

import io
import logging
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from mempressure.web.body import Body, BodyError, read_body
from mempressure.web.messages import Request, Response, plain
from mempressure.web.stream import RequestTooLargeError, Stream

if TYPE_CHECKING:
    from mempressure.web.server import Server

SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "deny"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Of every answer that does not say otherwise."""

_log = logging.getLogger(__name__)
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server gives its clients, in seconds, bytes and numbers."""

    connections: int = 128
    request_seconds: float = 10.0
    """For a request to arrive whole, from its first byte on; a new connection has as long for its handshake, and as
    long again for that first byte."""
    request_bytes: int = 32 << 10
    """Of a request without its body."""
    body_bytes: int = 0
    """Of a body. 0: none is wanted, and none is read."""
    response_seconds: float = 10.0
    """For a client to take a response."""
    idle_seconds: float = 120.0
    """Between two requests: more than scrape intervals usually are."""
    arrival_seconds: float = 0.5
    """For requests that are on their way when the server is told to stop."""
    stop_seconds: float = 10.0
    """For running requests to finish once the server is told to stop."""


class Connection:
    """A client's socket, which TLS replaces by its own, and what it is at."""

    __slots__ = ("address", "is_due", "socket", "waiting_since")

    def __init__(self, connection: socket.socket, address: Any) -> None:
        self.socket = connection
        self.address = address
        self.is_due = True
        """Whether a request is on its way: the first one of a new connection, or one that has begun to arrive."""
        self.waiting_since: float | None = time.monotonic()
        """Since when it has been waiting for a request to arrive whole; None while one is answered."""

    def end_reading(self) -> None:
        """Let the connection's thread read an end of file, after what has arrived already."""
        with suppress(OSError):  # the client may have reset it
            # Not `self.socket.shutdown`: an SSLSocket's drops its TLS, and with it the answer that is being sent.
            socket.socket.shutdown(self.socket, socket.SHUT_RD)


class Handler(BaseHTTPRequestHandler):
    """One connection, in its own thread."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # the base's, HTTP/0.9, would answer errors without a status line
    server: "Server"  # type: ignore[assignment]  # of our own; the base only keeps it
    request: Connection

    def setup(self) -> None:
        """Shake hands where there is TLS, and wrap the socket in a stream with deadlines."""
        limits = self.server.limits
        self.request.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._encrypted = self.server.shake_hands(self.request)
        self.connection = self.request.socket
        self._stream = Stream(self.connection, write_seconds=limits.response_seconds)
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
        except (OSError, EOFError) as error:
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
        self.request.is_due = True
        self._stream.expect(seconds=limits.request_seconds, size=limits.request_bytes)
        try:
            self.raw_requestline = self.rfile.readline()
            understood = self.parse_request()
        except RequestTooLargeError:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return True
        if not understood or self._stream.ended:  # refused; or cut short, by the client or by `stop`
            self.close_connection = True
            return not understood
        try:
            body = self._body()
        except BodyError as error:
            self.send_error(HTTPStatus.BAD_REQUEST, str(error))
            return True
        self.server.begin_working(self.request)
        self.close_connection |= not body.complete
        self._send(self._response(body))
        self._next_seconds = limits.idle_seconds
        return not body.complete

    def _body(self) -> Body:
        limit = self.server.limits.body_bytes
        if limit:
            if self.headers.get("Expect", "").lower() == "100-continue":
                self.send_response_only(HTTPStatus.CONTINUE)
                self.end_headers()
                self.wfile.flush()
            self._stream.allow(64 * limit)  # beyond what `read_body` takes, whatever the chunks' own size
            return read_body(self._input, self.headers, limit=limit)
        has_one = "Transfer-Encoding" in self.headers or self.headers.get("Content-Length", "0") != "0"
        return Body(b"", 0, complete=not has_one)

    def _response(self, body: Body) -> Response:
        path, _, query = self.path.partition("?")
        request = Request(
            self.command,
            path,
            query,
            self.headers,
            body.content,
            body.size,
            self.client_address[0],
            self._encrypted,
        )
        try:
            return self.server.answer(request)
        except Exception:  # noqa: BLE001 -- whatever is raised is logged and answered; the server goes on
            _log.exception("page failed: path=%s", path)
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _send(self, response: Response) -> None:
        self.close_connection |= self.server.stopping.is_set()
        self.send_response(response.status)
        sent = {"content-type", "content-length", "connection"}
        # What the operator set wins, then what the page says, then what is good for most.
        for headers in (self.server.extra_headers(), response.headers, SECURITY_HEADERS):
            for name, value in headers:
                if name.lower() not in sent:
                    self.send_header(name, value)
            sent |= {name.lower() for name, _ in headers}
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 -- the base class' signature
        """Answer what is no request, and end the connection."""
        self.close_connection = True
        self._send(plain(HTTPStatus(code), reason=message or ""))

    def _discard_rest(self) -> None:
        # A socket that is closed on unread data resets the connection, and the client may lose the response.
        self.connection.shutdown(socket.SHUT_WR)
        self._stream.expect(seconds=_LINGER_SECONDS, size=_LINGER_BYTES)
        while self._input.read1(1 << 16):
            pass

    def handle_expect_100(self) -> bool:
        """Leave the answer to whoever knows whether a body is wanted."""
        return True

    def version_string(self) -> str:
        """Return what the Server header says."""
        return "mempressure"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class' name
        """Log a request for whoever looks closely."""
        _log.debug("request: client=%s " + format, self.client_address[0], *args)
