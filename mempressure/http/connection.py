"""One client's connection: its handshake and requests, read under deadlines and limits, and the answers."""

import io
import logging
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mempressure.http.body import Body, BodyError, read_body
from mempressure.http.headers import Head, HeadError, read_head
from mempressure.http.messages import Request, Response, plain
from mempressure.http.stream import RequestTooLargeError, Stream

if TYPE_CHECKING:
    from mempressure.http.server import Server

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


class Handler:
    """Answers one connection's requests, in its own thread."""

    def __init__(self, connection: Connection, server: "Server") -> None:
        self._connection = connection
        self._server = server
        self._head: Head | None = None
        """Of the request that is being answered; None where it is none."""
        self._known: Head | None = None
        """The last one, for the next that is the same."""
        self._goes_on = True

    def run(self) -> None:
        """Shake hands where there is TLS, and answer until either side has enough.

        Raises:
            OSError: the client broke off, or took too long.
        """
        limits = self._server.limits
        self._connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._encrypted = self._server.shake_hands(self._connection)
        self._stream = Stream(self._connection.socket, write_seconds=limits.response_seconds)
        self._input = io.BufferedReader(self._stream)
        seconds = limits.request_seconds
        while self._goes_on and self._request_begins(seconds):
            self._goes_on = False
            if self._converse():
                self._discard_rest()
            seconds = limits.idle_seconds

    def _request_begins(self, seconds: float) -> bool:
        """Wait for the first byte of a request; false where none is to come."""
        if not self._server.begin_waiting(self._connection):
            return False
        self._stream.expect(seconds=seconds, size=self._server.limits.request_bytes)
        return bool(self._input.peek(1))

    def _converse(self) -> bool:
        """Answer one request; return whether the client may still be sending what nobody will read."""
        limits = self._server.limits
        self._head = None
        self._connection.is_due = True
        self._stream.expect(seconds=limits.request_seconds, size=limits.request_bytes)
        try:
            self._head = self._known = self._read_head()
        except HeadError as error:
            self._send(plain(error.status, reason=str(error)))
            return True
        except RequestTooLargeError:
            self._send(plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
            return True
        try:
            body = self._body(self._head)
        except BodyError as error:
            self._send(plain(HTTPStatus.BAD_REQUEST, reason=str(error)))
            return True
        self._server.begin_working(self._connection)
        response = self._response(self._head, body)
        self._goes_on = self._head.keeps_alive and body.complete and not self._server.stopping.is_set()
        self._send(response)
        return not body.complete

    def _read_head(self) -> Head:
        known = self._known
        # A Prometheus sends the same bytes with each scrape; to take them apart again takes 30 us.
        if known is not None and self._input.peek(1).startswith(known.raw):
            self._input.read(len(known.raw))
            return known
        return read_head(self._input)

    def _body(self, head: Head) -> Body:
        limit = self._server.limits.body_bytes
        if limit:
            if head.headers.get("Expect").lower() == "100-continue":
                self._stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._stream.allow(64 * limit)  # beyond what `read_body` takes, whatever the chunks' own size
            return read_body(self._input, head.headers, limit=limit)
        # Each of them: one that says 0 and another that does not would hide a request from the proxy in front.
        has_one = "Transfer-Encoding" in head.headers or set(head.headers.get_all("Content-Length")) - {"0"}
        return Body(b"", 0, complete=not has_one)

    def _response(self, head: Head, body: Body) -> Response:
        path, _, query = head.target.partition("?")
        client = self._connection.address[0]
        request = Request(head.method, path, query, head.headers, body.content, body.size, client, self._encrypted)
        try:
            response = self._server.answer(request)
        except Exception:  # noqa: BLE001 -- whatever is raised is logged and answered; the server goes on
            _log.exception("page failed: path=%s", path)
            response = plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        _log.debug("request: client=%s method=%s path=%s status=%d", client, head.method, path, response.status)
        return response

    def _send(self, response: Response) -> None:
        head = _head(response.status, response.content_type, self._server.extra_headers(), response.headers)
        head += f"Date: {_date(int(time.time()))}\r\nContent-Length: {len(response.body)}\r\n"
        if not self._goes_on:
            head += "Connection: close\r\n"
        elif self._head is not None and self._head.version < (1, 1):
            head += "Connection: keep-alive\r\n"
        data = f"{head}\r\n".encode("latin-1")
        if self._head is None or self._head.method != "HEAD":
            data += response.body
        self._stream.write(data)

    def _discard_rest(self) -> None:
        # A socket that is closed on unread data resets the connection, and the client may lose the response.
        self._connection.socket.shutdown(socket.SHUT_WR)
        self._stream.expect(seconds=_LINGER_SECONDS, size=_LINGER_BYTES)
        while self._input.read1(1 << 16):
            pass


@lru_cache(maxsize=64)
def _head(
    status: int, content_type: str, operators: tuple[tuple[str, str], ...], pages: tuple[tuple[str, str], ...]
) -> str:
    """Return what is the same in many answers: the status, and the headers that tell nothing of this one."""
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", "Server: mempressure"]
    sent = {"date", "server", "content-type", "content-length", "connection"}
    # What the operator set wins, then what the page says, then what is good for most.
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
