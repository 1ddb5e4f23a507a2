"""A request's body: how long it is, and its bytes where they are wanted."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from mempressure.http.headers import Headers

_PIECE = 1 << 16
_LINE = 256
"""Of a chunk's size or a trailer; whoever sends more has no good reason."""


class BodyError(ValueError):
    """The body's length cannot be understood; one more guess than the proxy in front makes a request of its own."""


class Body(NamedTuple):
    """What was read: its bytes, none where there were too many, and how many arrived."""

    content: bytes
    size: int
    complete: bool
    """False where it is so large that the rest was left with the client."""


def read_body(file: BinaryIO, headers: Headers, *, limit: int) -> Body:
    """Read a body, of which at most `limit` bytes are kept.

    A larger one is read up to 32 times the limit and thrown away: a client that still sends when it is answered may
    lose the answer.

    Raises:
        BodyError: its length is told wrongly, or twice.
        EOFError: the client broke it off.
    """
    pieces = _pieces(file, headers)
    content, size = bytearray(), 0
    for piece in pieces:
        size += len(piece)
        if size <= limit:
            content += piece
        else:
            content.clear()
        if size > 32 * limit:
            return Body(b"", size, complete=False)
    return Body(bytes(content), size, complete=True)


def _pieces(file: BinaryIO, headers: Headers) -> Iterator[bytes]:
    lengths = headers.get_all("Content-Length")
    encodings = headers.get_all("Transfer-Encoding")
    if encodings:
        if lengths or len(encodings) > 1 or encodings[0].strip().lower() != "chunked":
            raise BodyError("Transfer-Encoding is not chunked alone; send that or Content-Length")
        return _chunks(file)
    if not lengths:
        return iter(())
    length = lengths[0].strip()
    if len(lengths) > 1 or not (length.isascii() and length.isdecimal() and len(length) < 16):
        raise BodyError(f"Content-Length {', '.join(lengths)!r:.60} is no number of bytes")
    return _exactly(file, int(length))


def _exactly(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = file.read(min(size, _PIECE))
        if not piece:
            raise EOFError
        size -= len(piece)
        yield piece


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while size := _chunk_size(_line(file)):
        yield from _exactly(file, size)
        if _line(file):
            raise BodyError("a chunk is longer than it said")
    while _line(file):  # trailers, which nobody wants
        pass


def _line(file: BinaryIO) -> bytes:
    line = file.readline(_LINE)
    if not line:
        raise EOFError
    if not line.endswith(b"\r\n"):
        raise BodyError("a line of a chunked body does not end")
    return line[:-2]


def _chunk_size(line: bytes) -> int:
    text = line.partition(b";")[0].strip()
    if not text or len(text) > 12 or set(text.lower()) - set(b"0123456789abcdef"):
        raise BodyError(f"{line.decode('latin-1')!r:.60} is no size of a chunk")
    return int(text, 16)
