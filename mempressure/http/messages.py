"""Requests and responses as the services see them, independent of how they are sent."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import NamedTuple

TEXT = "text/plain; charset=utf-8"


class Headers:
    """The headers of a request, in their order; names are looked up in any case."""

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
        """Return every value of a header, none where it was not sent."""
        return self._values.get(name.lower(), ())


class Request(NamedTuple):
    """One request."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes = b""
    body_size: int = 0
    """Bytes that arrived: more than `body` has where the body exceeded the limit and was dropped."""
    client: str = ""
    """The address of the peer, which may be a proxy. Never used for authorisation."""
    encrypted: bool = False
    """Whether it came over TLS."""


class Response(NamedTuple):
    """One response. The server adds its standard headers and the length of the body."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Answer = Callable[[Request], Response]
"""A function that answers requests; several threads call it at once."""


def plain(status: HTTPStatus, *headers: tuple[str, str], reason: str = "") -> Response:
    """Return a plain-text response of one line: the status, and `reason` or else the status's standard phrase."""
    return Response(status, TEXT, f"{status.value} {reason or status.phrase}\n".encode(), headers)
