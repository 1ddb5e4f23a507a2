"""What a server is asked and what it answers, apart from how that travels."""

from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from mempressure.http.headers import Headers

TEXT = "text/plain; charset=utf-8"


class Request(NamedTuple):
    """One request."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes = b""
    body_size: int = 0
    """What arrived, in bytes: more than `body` has where that was too large to be kept."""
    client: str = ""
    """The address of whoever connected. Nobody is believed for it: it may be a proxy's."""
    encrypted: bool = False


class Response(NamedTuple):
    """What is answered."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Answer = Callable[[Request], Response]
"""What answers requests; several threads call it at once."""


def plain(status: HTTPStatus, *headers: tuple[str, str], reason: str = "") -> Response:
    """Return an answer that says its status, and a reason where there is one to tell."""
    return Response(status, TEXT, f"{status.value} {reason or status.phrase}\n".encode(), headers)
