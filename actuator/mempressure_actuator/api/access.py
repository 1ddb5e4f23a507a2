"""Access control: which requests need credentials, and which are refused as sent by another site's page.

Such a page can make a browser send requests to this server, with the user's remembered password (CSRF), or through a
host name of its own that resolves to 127.0.0.1 (DNS rebinding).
"""

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import request

from mempressure_actuator.api.answers import RequestError, require_size
from mempressure_actuator.api.token import Token

if TYPE_CHECKING:
    from mempressure.http.users import Users

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_OF_PROXIES = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on `host` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name, or none, which means every address
        return False


class Access:
    """The access rules of one server.

    Args:
        token: the credential that allows everything.
        host: where the actuator's server listens; None if the API is mounted in another application, where every
            request needs credentials.
        external_url: the URL under which people reach the server, if it is behind a proxy.
        users: returns the users of the web configuration, or None if it has none.
    """

    def __init__(
        self,
        token: Token,
        *,
        host: str | None = None,
        external_url: str = "",
        users: Callable[[], "Users | None"] = lambda: None,
    ) -> None:
        self.token = token
        self._host = host
        self._external = _origin(external_url) if external_url else None
        self._users = users

    def check(self) -> None:
        """Check the current request; called before each request is handled.

        Raises:
            RequestError: the request is not allowed, or its body is too large.
        """
        self.check_host()
        if request.method not in _READING:
            self.check_change()
        elif not self.reads_are_free():
            self.check_credentials()
        require_size()

    def check_change(self) -> None:
        """Check that the request may change state: it has credentials, and was not sent by another site's page.

        Raises:
            RequestError: it may not.
        """
        if not self.is_same_origin():
            origin = request.headers.get("Origin", "a page of another site")[:100]
            raise RequestError(
                "cross_origin",
                f"{origin!r} may not change anything here; use the actuator's own page, or start it with "
                "--web.external-url and the URL under which people reach it",
            )
        self.check_credentials()

    def reads_are_free(self) -> bool:
        """Return whether reads need no credentials: on loopback, not through a proxy, and with no users configured."""
        return (
            self._host is not None
            and is_loopback(self._host)
            and is_loopback(_host_name(request.headers.get("Host", "")))
            # Requests through a proxy on this machine may come from anywhere; its headers only show that there is one.
            and not any(name in request.headers for name in _OF_PROXIES)
            and self._users() is None
        )

    def check_host(self) -> None:
        """Check that a server on loopback was addressed by a loopback name; elsewhere every request needs credentials.

        Raises:
            RequestError: it was not.
        """
        if self._host is None or not is_loopback(self._host):
            return
        header = request.headers.get("Host", "")
        name = _host_name(header)
        if not name:
            raise RequestError("bad_request", "the header Host is missing; send it")
        known = name == self._host or is_loopback(name)
        if not known and (self._external is None or _with_port(header, self._external[0]) != self._external[1]):
            raise RequestError(
                "misdirected_request",
                f"Host {name[:100]!r} is not this server, which listens on {self._host}; use localhost or that "
                "address, or start it with --web.external-url",
            )

    def is_same_origin(self) -> bool:
        """Return whether the request comes from a page of this server, or from no page at all.

        Only browsers set `Sec-Fetch-Site` and `Origin`, pages cannot. The scheme is not compared with the server's own:
        behind a proxy that terminates TLS they differ.
        """
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return False
        given = request.headers.get("Origin")
        if given is None:
            return True
        origin = _origin(given)
        if origin is None:
            return False
        return origin[1] == _with_port(request.headers.get("Host", ""), origin[0]) or origin == self._external

    def check_credentials(self) -> None:
        """Check that the request has the token or a user's password.

        Raises:
            RequestError: it has neither.
        """
        given = request.headers.get("Authorization", "")
        scheme, _, secret = given.partition(" ")
        users = self._users()
        if scheme.lower() == "bearer" and self.token.matches(secret.strip()):
            return
        if users is not None and scheme.lower() == "basic" and _is_user(users, given):
            return
        message = "the token is wrong" if given else "a token is needed"
        raise RequestError(
            "unauthorized",
            f'{message}; send "Authorization: Bearer" and the content of the actuator\'s token file'
            + (", or a user of the web configuration" if users is not None else ""),
            headers={"WWW-Authenticate": self.challenge()},
        )

    def challenge(self) -> str:
        """Return the value of WWW-Authenticate for a request without valid credentials."""
        wrong = ', error="invalid_token"' if request.headers.get("Authorization") else ""
        basic = ', Basic realm="mempressure", charset="UTF-8"' if self._users() is not None else ""
        return f'Bearer realm="mempressure"{wrong}{basic}'


def _is_user(users: "Users", authorization: str) -> bool:
    from mempressure.http.users import BusyError, basic_credentials  # loaded only if there are users

    credentials = basic_credentials(authorization)
    try:
        return credentials is not None and users.accept(*credentials)
    except BusyError:
        raise RequestError(
            "busy", "too many passwords wait to be checked; send this again later", headers={"Retry-After": "1"}
        ) from None


def _origin(url: str) -> tuple[str, str] | None:
    """Return scheme and HOST:PORT of a URL or an Origin header, or None if it has none ("null")."""
    try:
        parts = urlsplit(url.strip().lower())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, f"{host}:{port or _DEFAULT_PORTS[parts.scheme]}"


def _with_port(host: str, scheme: str) -> str:
    """Return a Host header as HOST:PORT."""
    found = _origin(f"{scheme}://{host}")
    return found[1] if found else ""


def _host_name(header: str) -> str:
    """Return the name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower().removesuffix(".")
