"""A request's line and headers.

Not `http.server`, which reads them with the parser of e-mails and imports what FTP, MIME and TLS need: 7 MB of an
exporter's 23. Nor with its leniency: what could be read in two ways, by a proxy and by us, is refused.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import BinaryIO, NamedTuple

MAX_HEADERS = 100

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_LINE = re.compile(rf"({_NAME.pattern}) ([^\x00-\x20\x7f]+) HTTP/(\d)\.(\d)", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class HeadError(ValueError):
    """What arrived is no request; `status` is what to answer."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Headers:
    """Headers of a request, in their order; names are found in any case."""

    __slots__ = ("_items", "_values")

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items = list(items)
        self._values: dict[str, list[str]] = {}
        for name, value in self._items:
            self._values.setdefault(name.lower(), []).append(value)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values

    def items(self) -> Iterator[tuple[str, str]]:
        """Return names and values, as they were sent."""
        return iter(self._items)

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a header, or `default`."""
        return next(iter(self.get_all(name)), default)

    def get_all(self, name: str) -> Sequence[str]:
        """Return every value of a header."""
        return self._values.get(name.lower(), ())


class Head(NamedTuple):
    """What a request begins with."""

    method: str
    target: str
    version: tuple[int, int]
    headers: Headers
    raw: bytes
    """All of it as it arrived."""

    @property
    def keeps_alive(self) -> bool:
        """Return whether the client wants to go on with this connection."""
        wishes = {part.strip() for value in self.headers.get_all("Connection") for part in value.lower().split(",")}
        return "close" not in wishes if self.version >= (1, 1) else "keep-alive" in wishes


def read_head(file: BinaryIO) -> Head:
    """Read a request's line and headers.

    Raises:
        HeadError: they are none.
        EOFError: the client broke off.
    """
    raw: list[bytes] = []
    line = _read_line(file, raw)
    match = _LINE.fullmatch(line)
    if match is None:
        raise HeadError(HTTPStatus.BAD_REQUEST, f"{line[:60]!r} is no request of HTTP/1.1")
    version = int(match[3]), int(match[4])
    if version[0] != 1:
        raise HeadError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, f"HTTP/{match[3]}.{match[4]} is not spoken, HTTP/1.1 is")
    headers = Headers(_read_headers(file, raw))
    if len(headers.get_all("Host")) > 1:
        raise HeadError(HTTPStatus.BAD_REQUEST, "there are several headers Host; send one")
    if version < (1, 1) and "Transfer-Encoding" in headers:  # which proxies of that age pass on unread
        raise HeadError(HTTPStatus.BAD_REQUEST, "HTTP/1.0 has no Transfer-Encoding; send Content-Length")
    return Head(match[1], match[2], version, headers, b"".join(raw))


def _read_headers(file: BinaryIO, raw: list[bytes]) -> Iterator[tuple[str, str]]:
    count = 0
    while line := _read_line(file, raw):
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name) or _CONTROL.search(value):
            raise HeadError(HTTPStatus.BAD_REQUEST, f"{line[:60]!r} is no header")
        count += 1
        if count > MAX_HEADERS:
            raise HeadError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"there are more than {MAX_HEADERS} headers")
        yield name, value.strip(" \t")


def _read_line(file: BinaryIO, raw: list[bytes]) -> str:
    line = file.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    raw.append(line)
    return line[:-1].removesuffix(b"\r").decode("latin-1")
