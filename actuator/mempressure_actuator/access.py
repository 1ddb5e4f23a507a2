"""Who may do what: the token for whatever changes something, and a server on loopback for loopback only."""

import ipaddress
from collections.abc import Callable

from flask import request

from mempressure_actuator.answers import RequestError, require_size
from mempressure_actuator.token import Token

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # some other name, or none: every address
        return False


def shows_token(token: Token) -> bool:
    """Return whether the request has the token in its header."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and token.matches(given.strip())


def require_token(token: Token) -> None:
    """Check that the request shows the token.

    Raises:
        RequestError: it does not.
    """
    if shows_token(token):
        return
    given = request.headers.get("Authorization", "").partition(" ")[2]
    wrong = 'Bearer realm="mempressure", error="invalid_token"' if given else 'Bearer realm="mempressure"'
    message = "the token is wrong" if given else "a token is needed"
    raise RequestError(
        "unauthorized",
        f'{message}; send "Authorization: Bearer" and what the token file of the actuator holds',
        headers={"WWW-Authenticate": wrong},
    )


def guard(token: Token, *, reads_need_token: bool) -> Callable[[], None]:
    """Return a check for each request of a blueprint.

    Args:
        token: what to show.
        reads_need_token: also for requests that change nothing.

    The check raises `RequestError` where the token is missing or wrong, and where the body is too large.
    """

    def check() -> None:
        if reads_need_token or request.method not in _READING:
            require_token(token)
        require_size()

    return check


def guard_host(host: str) -> Callable[[], None]:
    """Return a check that a server on loopback was addressed as such.

    A browser can be led to send requests to 127.0.0.1 under a name of somebody else (DNS rebinding), and would let that
    somebody read the answers.
    """

    def check() -> None:
        name = _host_name(request.headers.get("Host", ""))
        if not name:
            raise RequestError("bad_request", "the header Host is missing; send it")
        if name != host and not is_loopback(name):
            raise RequestError(
                "misdirected_request",
                f"Host {name[:100]!r} is not this server, which listens on {host}; use localhost or that address",
            )

    return check


def _host_name(header: str) -> str:
    """Return the name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower().removesuffix(".")
