"""One client's connection: its TLS handshake, its requests under deadlines and limits, and the responses."""

import logging
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from mempressure.http.framing import Body, Head, RequestError, RequestReader
from mempressure.http.messages import Answer, Request, Response, plain
from mempressure.http.stream import Stream

SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "deny"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Sent with every response that does not set them itself."""

_log = logging.getLogger(__name__)
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one server, in seconds, bytes and numbers."""

    connections: int = 128
    request_seconds: float = 10.0
    """From a request's first byte to its last; a new connection has as long for its handshake, and as long again until
    that first byte."""
    request_bytes: int = 32 << 10
    """Of the request line and headers together."""
    body_bytes: int = 0
    """Of a body. 0: the service takes none, and none is read."""
    response_seconds: float = 10.0
    """For the client to receive a response."""
    idle_seconds: float = 120.0
    """Between two requests: more than usual scrape intervals."""
    arrival_seconds: float = 0.5
    """At a stop: for requests that are already being sent to arrive."""
    stop_seconds: float = 10.0
    """At a stop: for running requests to finish."""


class Connection:
    """The state of one client's connection that the server needs to end it. TLS replaces its socket."""

    __slots__ = ("address", "is_due", "socket", "waiting_since")

    def __init__(self, connection: socket.socket, address: Any) -> None:
        self.socket = connection
        self.address = address
        self.is_due = True
        """Whether a request is expected soon: the first of a new connection, or one whose first byte arrived."""
        self.waiting_since: float | None = time.monotonic()
        """Since when the server has been waiting for a complete request; None while it answers one."""

    def end_reading(self) -> None:
        """Make the connection's thread read an end of file after the bytes that have already arrived."""
        with suppress(OSError):  # the client may have reset it
            # Not `self.socket.shutdown`: an SSLSocket's drops its TLS, and with it the response that is being sent.
            socket.socket.shutdown(self.socket, socket.SHUT_RD)


class ConnectionOwner(Protocol):
    """What a connection's handler uses of the server that accepted it."""

    answer: Answer
    limits: Limits
    stopping: threading.Event

    def handshake(self, connection: Connection) -> bool:
        """Do the TLS handshake if TLS is configured; return whether the connection is encrypted."""

    def extra_headers(self) -> tuple[tuple[str, str], ...]:
        """Return the headers that the operator configured for every response."""

    def begin_waiting(self, connection: Connection) -> bool:
        """Record that the connection waits for a request; return False where it is to be closed instead."""

    def begin_working(self, connection: Connection) -> None:
        """Record that a request is being answered, so that the connection is not ended meanwhile."""


class Handler:
    """Answers the requests of one connection, in its own thread."""

    def __init__(self, connection: Connection, owner: ConnectionOwner) -> None:
        self._connection = connection
        self._owner = owner
        self._goes_on = True
        """Whether another request may follow on this connection."""

    def run(self) -> None:
        """Do the handshake where there is TLS, and answer requests until the client or the server ends the connection.

        Raises:
            OSError: the connection failed, or the client took too long.
            EOFError: the client closed it in the middle of a request.
        """
        limits = self._owner.limits
        self._connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._encrypted = self._owner.handshake(self._connection)
        self._stream = Stream(self._connection.socket, write_seconds=limits.response_seconds)
        self._reader = RequestReader(self._stream, head_bytes=limits.request_bytes, body_bytes=limits.body_bytes)
        seconds = limits.request_seconds
        while self._goes_on and self._request_begins(seconds):
            self._goes_on = False
            if not self._serve_request():
                self._discard_rest()
            seconds = limits.idle_seconds

    def _request_begins(self, seconds: float) -> bool:
        """Wait for the first byte of a request; return False where there will be none."""
        if not self._owner.begin_waiting(self._connection):
            return False
        self._stream.set_deadline(seconds=seconds)
        return self._reader.wait()

    def _serve_request(self) -> bool:
        """Read and answer one request; return False where the client may still be sending parts of it."""
        self._connection.is_due = True
        self._stream.set_deadline(seconds=self._owner.limits.request_seconds)
        try:
            head = self._reader.read_head()
            body = self._reader.read_body(head)
        except RequestError as error:
            self._send(plain(error.status, reason=str(error)))
            return False
        self._owner.begin_working(self._connection)
        response = self._response(head, body)
        self._goes_on = head.keeps_alive and body.complete and not self._owner.stopping.is_set()
        self._send(response, head)
        return body.complete

    def _response(self, head: Head, body: Body) -> Response:
        path, _, query = head.target.partition("?")
        client = self._connection.address[0]
        request = Request(head.method, path, query, head.headers, body.content, body.size, client, self._encrypted)
        try:
            response = self._owner.answer(request)
        except Exception:  # noqa: BLE001 -- any error of a page is logged and answered 500; the server goes on
            _log.exception("page failed: path=%s", path)
            response = plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        _log.debug("request: client=%s method=%s path=%s status=%d", client, head.method, path, response.status)
        return response

    def _send(self, response: Response, head: Head | None = None) -> None:
        """Send a response to the request with this head, or to one whose head could not be read."""
        text = _constant_part(response.status, response.content_type, self._owner.extra_headers(), response.headers)
        text += f"Date: {_date(int(time.time()))}\r\nContent-Length: {len(response.body)}\r\n"
        if not self._goes_on:
            text += "Connection: close\r\n"
        elif head is not None and head.version < (1, 1):
            text += "Connection: keep-alive\r\n"
        data = f"{text}\r\n".encode("latin-1")
        if head is None or head.method != "HEAD":
            data += response.body
        self._stream.send(data)

    def _discard_rest(self) -> None:
        """Read on for a moment: closing a socket with unread data resets it, and the client may lose the response."""
        self._connection.socket.shutdown(socket.SHUT_WR)
        self._stream.set_deadline(seconds=_LINGER_SECONDS)
        discarded = 0
        while discarded < _LINGER_BYTES and (data := self._stream.receive()):
            discarded += len(data)


@lru_cache(maxsize=64)
def _constant_part(
    status: int, content_type: str, operators: tuple[tuple[str, str], ...], pages: tuple[tuple[str, str], ...]
) -> str:
    """Return the part of a response's head that many responses share: all but its date, length and connection."""
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", "Server: mempressure"]
    sent = {"date", "server", "content-type", "content-length", "connection"}
    # The operator's headers take precedence, then the page's, then the defaults.
    for headers in (operators, pages, SECURITY_HEADERS):
        lines += [f"{name}: {value}" for name, value in headers if name.lower() not in sent]
        sent |= {name.lower() for name, _ in headers}
    lines.append(f"Content-Type: {content_type}")
    return "\r\n".join([*lines, ""])


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
