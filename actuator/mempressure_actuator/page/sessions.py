"""Who has signed in: sessions that a cookie names, kept here and nowhere else.

The token itself is neither in the cookie nor kept for the session: a cookie that somebody steals ends with the session,
at the latest when the actuator does. Times are passed in, on a clock that is never set.
"""

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

SESSION_SECONDS = 8 * 3600.0
MAX_SESSIONS = 100
"""The one that is oldest makes room."""


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that has shown the token."""

    form_token: str
    """What its forms hold, so that nobody else's form is taken for one of them."""
    expires: float

    def matches(self, form_token: str) -> bool:
        """Return whether a form is one of this session's."""
        return hmac.compare_digest(self.form_token.encode(), form_token.encode(errors="surrogatepass"))


class Sessions:
    """The sessions that are open; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, *, now: float) -> str:
        """Open a session and return the cookie that names it."""
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._open) >= MAX_SESSIONS:
                self._open.popitem(last=False)
            self._open[_key(cookie)] = Session(secrets.token_urlsafe(32), now + SESSION_SECONDS)
        return cookie

    def find(self, cookie: str, *, now: float) -> Session | None:
        """Return the session that a cookie names; None where it has ended, or never began."""
        with self._lock:
            session = self._open.get(_key(cookie))
            if session is not None and session.expires <= now:
                del self._open[_key(cookie)]
                return None
        return session

    def end(self, cookie: str) -> None:
        """End the session that a cookie names, if there is one."""
        with self._lock:
            self._open.pop(_key(cookie), None)


def _key(cookie: str) -> bytes:
    # Looked up by its hash: how long a look-up takes says nothing of the cookies that there are.
    return hashlib.sha256(cookie.encode(errors="surrogatepass")).digest()
