"""Sign-in sessions of the status page, kept in memory and identified by a random cookie.

The token is neither in the cookie nor kept with the session: a stolen cookie is worthless once the session ends, at the
latest when the actuator stops. Times are passed in, on a monotonic clock.
"""

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

SESSION_SECONDS = 8 * 3600.0
MAX_SESSIONS = 100
"""Beyond this number the oldest session ends."""


@dataclass(frozen=True, slots=True)
class Session:
    """The session of a browser that has sent the token."""

    form_token: str
    """A random value in the session's forms, which a form of another site does not have."""
    expires: float

    def matches(self, form_token: str) -> bool:
        """Return whether a form belongs to this session."""
        return hmac.compare_digest(self.form_token.encode(), form_token.encode(errors="surrogatepass"))


class Sessions:
    """The open sessions; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, *, now: float) -> str:
        """Open a session and return its cookie."""
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._open) >= MAX_SESSIONS:
                self._open.popitem(last=False)
            self._open[_key(cookie)] = Session(secrets.token_urlsafe(32), now + SESSION_SECONDS)
        return cookie

    def find(self, cookie: str, *, now: float) -> Session | None:
        """Return the session of a cookie; None if it has ended, or never existed."""
        with self._lock:
            session = self._open.get(_key(cookie))
            if session is not None and session.expires <= now:
                del self._open[_key(cookie)]
                return None
        return session

    def end(self, cookie: str) -> None:
        """End the session of a cookie, if there is one."""
        with self._lock:
            self._open.pop(_key(cookie), None)


def _key(cookie: str) -> bytes:
    # Looked up by hash: the time that a look-up takes then reveals nothing about other cookies.
    return hashlib.sha256(cookie.encode(errors="surrogatepass")).digest()
