"""Authorises form posts: they must come from this page, with the token or in a session that began with it."""

import time
from dataclasses import dataclass

from flask import g, request
from werkzeug.wrappers import Response

from mempressure_actuator.api.access import Access
from mempressure_actuator.api.answers import RequestError
from mempressure_actuator.page.sessions import SESSION_SECONDS, Session, Sessions


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a form is refused, and what to do."""

    status: int
    message: str


MISSING = Refusal(401, "This needs the token. Type it below; your other input is kept.")
ENDED = Refusal(
    401,
    f"Your sign-in has ended: it lasts {SESSION_SECONDS / 3600:g} hours, or until the actuator stops. "
    "Type the token again; your other input is kept.",
)
WRONG = Refusal(401, "The token is wrong. Type the content of the actuator's token file; your other input is kept.")
STALE = Refusal(
    403, "This page was loaded before you signed in. Nothing was changed; your input is kept, send it again."
)
FOREIGN = Refusal(403, "This was sent from another site. Nothing was changed; send it from this page.")


class SignIn:
    """The sign-in of one server: finds, opens and ends the sessions of its requests.

    Args:
        access: the access rules; its token opens a session.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._sessions = Sessions()

    def session(self) -> Session | None:
        """Return the open session of the request, including one that it began; None if it has none."""
        cookie = g.get("begun") or request.cookies.get(_cookie_name())
        return self._sessions.find(cookie, now=time.monotonic()) if cookie else None

    def may_read(self) -> bool:
        """Return whether the request may read: where reads need no credentials, in a session, or with credentials."""
        if self._access.reads_are_free() or self.session() is not None:
            return True
        try:
            self._access.check_credentials()
        except RequestError:
            return False
        return True

    def is_same_origin(self) -> bool:
        """Return whether the request comes from a page of this server, by the headers that browsers send."""
        return self._access.is_same_origin()

    def refusal(self) -> Refusal | None:
        """Return why the form of this request is refused; None if it may be carried out.

        A token in the form takes precedence over a session, and begins a new one.
        """
        if not self.is_same_origin():
            return FOREIGN
        if given := request.form.get("token", "").strip():
            if not self._access.token.matches(given):
                return WRONG
            g.begun = self._sessions.begin(now=time.monotonic())
            return None
        session = self.session()
        if session is None:
            return ENDED if request.cookies.get(_cookie_name()) else MISSING
        return None if session.matches(request.form.get("form_token", "")) else STALE

    def remember(self, response: Response) -> Response:
        """Set the cookie of the session that this request began, if it began one."""
        if "begun" in g:
            response.set_cookie(
                _cookie_name(),
                g.begun,
                max_age=int(SESSION_SECONDS),
                secure=request.is_secure,
                httponly=True,
                samesite="Strict",
            )
        return response

    def forget(self, response: Response) -> None:
        """End the session of the request and delete its cookie."""
        if cookie := request.cookies.get(_cookie_name()):
            self._sessions.end(cookie)
        response.delete_cookie(_cookie_name(), secure=request.is_secure, httponly=True, samesite="Strict")


def _cookie_name() -> str:
    # Browsers share cookies between ports: two actuators on one machine would sign each other out.
    port = request.host.rpartition(":")[2]
    return f"mempressure_session_{port}" if port.isascii() and port.isdecimal() else "mempressure_session"
