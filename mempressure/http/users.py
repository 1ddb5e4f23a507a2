"""Users with bcrypt-hashed passwords, and HTTP's basic authentication.

A check at cost 10 takes 70 to 135 ms of a core. Therefore a verified password is remembered, one for each user. An
unknown user costs a check as a known one does, so that response times do not reveal names. At most `MAX_WAITING` checks
wait at once, so that guessing does not delay users whose password is remembered.
"""

import base64
import binascii
import hmac
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import bcrypt

from mempressure.http.messages import Answer, Request, Response, plain

CHALLENGE = 'Basic realm="mempressure", charset="UTF-8"'
"""The `WWW-Authenticate` header of a 401."""
MAX_WAITING = 8
"""Checks that may wait or run at once; they run one after the other."""
MAX_COST = 18
"""2^18 rounds take about 20 s."""

_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_MAX_PASSWORD_BYTES = 72
"""bcrypt has always ignored the rest."""


class BusyError(Exception):
    """Too many passwords are waiting to be checked."""


class Users:
    """The users of a web configuration, and the check of their passwords.

    Args:
        hashes: bcrypt hash by user name.

    Raises:
        ValueError: a name or a hash cannot be used; the message names the user and not the hash.
    """

    def __init__(self, hashes: Mapping[Any, Any]) -> None:
        for name, text in hashes.items():
            if not isinstance(name, str) or not name or ":" in name:
                raise ValueError(f"basic_auth_users: {name!r:.60} cannot be a user's name; send text without a colon")
            match = _HASH.fullmatch(text) if isinstance(text, str) else None
            if match is None or not 4 <= int(match[1]) <= MAX_COST:
                raise ValueError(
                    f"basic_auth_users.{name} is no bcrypt hash of cost 4 to {MAX_COST}; make one with htpasswd -nBC 10"
                )
        self._hashes: dict[str, bytes] = {name: text.encode() for name, text in hashes.items()}
        self._all = tuple(self._hashes.values())
        self._key = secrets.token_bytes(32)
        self._verified: dict[str, bytes] = {}
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        self._checking = threading.Lock()

    def accept(self, name: str, password: str) -> bool:
        """Return whether the password is the user's.

        Raises:
            BusyError: too many others are waiting to be checked.
        """
        secret = password.encode(errors="surrogatepass")
        digest = self._digest(b"password", secret)
        known = self._verified.get(name)
        if known is not None and hmac.compare_digest(known, digest):
            return True
        matches = self._check(self._hash_of(name), secret)
        if not matches or name not in self._hashes:
            return False
        self._verified[name] = digest
        return True

    def _hash_of(self, name: str) -> bytes:
        """Return the user's hash; for an unknown user another user's, always the same one."""
        chosen = int.from_bytes(self._digest(b"name", name.encode(errors="surrogatepass"))[:8], "big")
        own: bytes | None = self._hashes.get(name)
        return own or self._all[chosen % len(self._all)]

    def _check(self, hashed: bytes, secret: bytes) -> bool:
        if not self._waiting.acquire(blocking=False):
            raise BusyError
        try:
            with self._checking:
                return bcrypt.checkpw(secret[:_MAX_PASSWORD_BYTES], hashed)
        except ValueError:  # a password with a NUL, which bcrypt refuses
            return False
        finally:
            self._waiting.release()

    def _digest(self, purpose: bytes, secret: bytes) -> bytes:
        return hmac.digest(self._key, purpose + b"\0" + secret, "sha256")


def users_only(answer: Answer, users: Callable[[], Users | None]) -> Answer:
    """Return a function that answers requests of authenticated users only, or all requests where `users` gives None."""

    def guarded(request: Request) -> Response:
        allowed = users()
        if allowed is None:
            return answer(request)
        given = basic_credentials(request.headers.get("Authorization", ""))
        try:
            if given is not None and allowed.accept(*given):
                return answer(request)
        except BusyError:
            return plain(
                HTTPStatus.SERVICE_UNAVAILABLE, ("Retry-After", "1"), reason="too many passwords are being checked"
            )
        return plain(HTTPStatus.UNAUTHORIZED, ("WWW-Authenticate", CHALLENGE))

    return guarded


def basic_credentials(authorization: str) -> tuple[str, str] | None:
    """Return name and password of an Authorization header of basic authentication (RFC 7617), or None."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon else None
