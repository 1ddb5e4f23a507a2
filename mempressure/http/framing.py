"""Reading requests from a connection: h11 parses them, within limits on bytes, headers and chunks.

h11 alone decides what a valid request is and where its body ends; a request that it refuses is answered 400. This
module hands it the bytes and limits them before, because anybody who can connect chooses them:

- A head (request line and headers) is passed on once it is complete, if it is no larger than `head_bytes` and has no
  more than `MAX_HEADERS` headers.
- Control characters and folded lines in a head are refused before h11 sees them. It accepts some of them, and its
  search takes quadratic time where one follows many spaces: 10 s with the interpreter locked for a head of 32 KiB.
- A chunked body is passed on in pieces of `_CHUNKED_PIECE_BYTES`. A chunk's size with its extensions, and the
  trailers, can then be at most twice as long, and the same search ends within 3 ms.
- The overhead of chunks (sizes, extensions, line ends, trailers) is limited to `_OVERHEAD_BYTES` and an eighth of the
  data received so far. A chunk has at least 5 bytes of it, and costs h11 about 8 us whatever its size: a client that
  sends chunks of one byte is refused after 3,400 of them, or 30 ms.
"""

import re
from http import HTTPStatus
from typing import Any, NamedTuple

import h11

from mempressure.http.messages import Headers
from mempressure.http.stream import PIECE_BYTES, Stream

MAX_HEADERS = 100
_DISCARDED_BODIES = 32
"""How many times the limit is read of a body that exceeds it."""
_OVERHEAD_BYTES = 16 << 10
_CHUNKED_PIECE_BYTES = 256

_END_OF_HEAD = re.compile(rb"\n\r?\n")  # as h11 finds it
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\n[ \t]")
_BYTEARRAY = re.compile(r"""bytearray\((b(['"]).*?\2)\)""")


class RequestError(ValueError):
    """A request that cannot be accepted; `status` is that of the response."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Head(NamedTuple):
    """The request line and headers of one request."""

    method: str
    target: str
    version: tuple[int, int]
    headers: Headers
    raw: bytes
    """All of it as it was sent."""
    keeps_alive: bool
    """Whether the client wants to use the connection for another request."""
    has_body: bool


class Body(NamedTuple):
    """What was read of a request's body."""

    content: bytes
    """Empty where the body exceeded the limit."""
    size: int
    """Bytes that arrived, without chunk sizes and the like."""
    complete: bool
    """False where the rest was not read; the connection cannot be used for another request then."""


class RequestReader:
    """Reads the requests of one connection, one after the other.

    Args:
        stream: the connection; its deadline is the caller's business.
        head_bytes: the most that the request line and headers may have together.
        body_bytes: the most that is kept of a body; with 0, bodies are not read at all.
    """

    def __init__(self, stream: Stream, *, head_bytes: int, body_bytes: int) -> None:
        self._stream = stream
        self._head_bytes = head_bytes
        self._body_bytes = body_bytes
        self._received = b""
        """Received and not yet parsed."""
        self._last: Head | None = None
        """The previous request's head, if it had no body."""
        self._parser = h11.Connection(h11.SERVER)
        """Of the current request, from its head on."""

    def wait(self) -> bool:
        """Wait for the first byte of a request; return False where the client closed the connection instead.

        Raises:
            OSError: the deadline passed, or the connection failed.
        """
        if not self._received:
            self._received = self._stream.receive()
        return bool(self._received)

    def read_head(self) -> Head:
        """Return the head of the next request.

        Raises:
            RequestError: it is invalid or exceeds a limit.
            EOFError: the client closed the connection before its end.
            OSError: the deadline passed, or the connection failed.
        """
        last = self._last
        # Prometheus sends the same bytes with each scrape, and parsing them again would take 40 us.
        if last is not None and self._received.startswith(last.raw):
            self._received = self._received[len(last.raw) :]
            return last
        raw = self._receive_head()
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_CHUNKED_PIECE_BYTES)
        self._parser.receive_data(raw)
        head = _head(_next_event(self._parser), raw)
        self._last = None if head.has_body else head
        return head

    def _receive_head(self) -> bytes:
        """Take the bytes of one head, up to and including its blank line, from what was received."""
        received = bytearray(self._received)
        if received[0] <= 0x20:
            raise _bad_request(f"it begins with {bytes(received[:1])!r}; send a method such as GET, without TLS")
        searched = 0
        while (blank := _END_OF_HEAD.search(received, searched)) is None and len(received) <= self._head_bytes:
            searched = max(0, len(received) - 2)
            received += self._receive()
        if blank is None or blank.end() > self._head_bytes:
            raise _too_large(f"the request line and headers exceed {self._head_bytes} bytes")
        raw, self._received = bytes(received[: blank.end()]), bytes(received[blank.end() :])
        if raw.count(b"\n") > MAX_HEADERS + 2:  # the request line and the blank line
            raise _too_large(f"the request has more than {MAX_HEADERS} headers")
        if forbidden := _FORBIDDEN.search(raw):
            line = raw[raw.rfind(b"\n", 0, forbidden.start()) + 1 : forbidden.end()]
            raise _bad_request(f"a control character or a folded line in {line[-60:]!r}; send neither")
        return raw

    def read_body(self, head: Head) -> Body:
        """Return the body of the request whose head was read last.

        One that exceeds the limit is read up to 32 times that and dropped, because a client that is still sending
        when the response arrives may lose the response.

        Raises:
            RequestError: its chunks are invalid, or too small for their number.
            EOFError: the client closed the connection before its end.
            OSError: the deadline passed, or the connection failed.
        """
        if not (head.has_body and self._body_bytes):
            return Body(b"", 0, complete=not head.has_body)
        if self._parser.they_are_waiting_for_100_continue:
            self._stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        piece_bytes = _CHUNKED_PIECE_BYTES if "Transfer-Encoding" in head.headers else PIECE_BYTES
        content, size, passed_on = bytearray(), 0, 0
        while size <= _DISCARDED_BODIES * self._body_bytes:
            event = _next_event(self._parser)
            if event is h11.NEED_DATA:
                _require_large_chunks(passed_on - size, size)
                passed_on += self._pass_on(piece_bytes)
            elif isinstance(event, h11.EndOfMessage):
                self._received = self._parser.trailing_data[0] + self._received
                return Body(bytes(content), size, complete=True)
            else:
                size += len(event.data)
                if size <= self._body_bytes:
                    content += event.data
                else:
                    content.clear()
        return Body(b"", size, complete=False)

    def _pass_on(self, limit: int) -> int:
        """Give h11 the next bytes of a body, at most `limit`; return how many."""
        data = self._received or self._receive()
        self._received = data[limit:]
        self._parser.receive_data(data[:limit])
        return min(len(data), limit)

    def _receive(self) -> bytes:
        data = self._stream.receive()
        if not data:
            raise EOFError("the client closed the connection in the middle of a request")
        return data


def _head(request: Any, raw: bytes) -> Head:
    """Return the head that h11 read, unless it is one that h11 leaves to its caller to judge."""
    version = int(request.http_version[:1]), int(request.http_version[2:])
    if version[0] != 1:
        raise RequestError(
            HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, f"HTTP/{version[0]}.{version[1]} is not supported; send HTTP/1.1"
        )
    headers = Headers((name.decode(), value.decode("latin-1")) for name, value in request.headers.raw_items())
    is_chunked = "Transfer-Encoding" in headers
    if is_chunked and version < (1, 1):  # proxies of that age pass it on without acting on it
        raise _bad_request("HTTP/1.0 has no Transfer-Encoding; send Content-Length, or HTTP/1.1")
    options = {part.strip(" \t") for value in headers.get_all("Connection") for part in value.lower().split(",")}
    return Head(
        request.method.decode(),
        request.target.decode(),
        version,
        headers,
        raw,
        keeps_alive="close" not in options if version >= (1, 1) else "keep-alive" in options,
        has_body=is_chunked or int(headers.get("Content-Length", "0")) > 0,
    )


def _next_event(parser: h11.Connection) -> Any:
    try:
        return parser.next_event()
    except h11.RemoteProtocolError as error:
        if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:  # of its buffer, in a chunked body
            raise _bad_request(f"a chunk's extensions or the trailers exceed {_CHUNKED_PIECE_BYTES} bytes") from None
        raise _bad_request(_BYTEARRAY.sub(r"\1", str(error))) from None


def _require_large_chunks(overhead: int, size: int) -> None:
    if overhead > _OVERHEAD_BYTES + size // 8:
        raise _bad_request(
            f"{overhead} bytes of chunk sizes and extensions for {size} bytes of data; "
            "send larger chunks, or Content-Length"
        )


def _bad_request(reason: str) -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, f"not a valid HTTP/1.1 request: {reason:.160}")


def _too_large(reason: str) -> RequestError:
    return RequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, reason)
