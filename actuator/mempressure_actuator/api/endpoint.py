"""What an endpoint is: what it takes, what it answers, and how it can fail. The routes and OpenAPI come from it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

ERRORS = MappingProxyType(
    {
        "bad_request": (400, "A value or a field cannot be used; nothing was changed."),
        "invalid_notification": (400, "The body is no notification, or no alert of it can be used."),
        "unauthorized": (401, "The token is missing or wrong."),
        "cross_origin": (403, "Another site's page made a browser send the request."),
        "not_found": (404, "There is no such path."),
        "unknown_package": (404, "Nobody tracks the package."),
        "method_not_allowed": (405, "The path has other methods."),
        "too_many": (409, "There are as many preferences as there may be."),
        "too_large": (413, "The body is too large."),
        "unsupported_media_type": (415, "The body is not declared as application/json."),
        "misdirected_request": (421, "A server on loopback was addressed by another name."),
        "internal_error": (500, "A bug; the log has more."),
        "not_measured": (503, "The host cannot be measured."),
        "not_stored": (503, "The disk does not take it; nothing was changed."),
        "not_read": (503, "The disk does not give it."),
        "busy": (503, "Too many requests wait for the workers, or too many passwords to be checked."),
        "overloaded": (503, "Too many notifications wait for the disk."),
    }
)
"""Every code of an error: its HTTP status, and when it is answered."""

ALWAYS_POSSIBLE = (
    "bad_request",
    "unauthorized",
    "cross_origin",
    "too_large",
    "misdirected_request",
    "internal_error",
    "busy",
)
"""What any endpoint can answer: it is about the request as such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    """Below the server, with parameters as OpenAPI writes them: /api/packages/{package}/unload."""
    act: Callable[..., Any]
    """What answers; its docstring is the description."""
    answer: Any = None
    """The type of the answer's `data`; None for a page."""
    pages: tuple[str, ...] = ("application/json",)
    """The media types of the answer."""
    statuses: tuple[int, ...] = (200,)
    """Of answers that are no errors."""
    body: Any = None
    """The type of the request's body, which has an EXAMPLE; None where a body is not looked at."""
    body_required: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The types of the parameters in the path."""
    query: Mapping[str, Any] = field(default_factory=dict)
    """The types of those in the query, all optional."""
    errors: tuple[str, ...] = ()
    """Codes of `ERRORS`, beyond those of a body and `ALWAYS_POSSIBLE`."""

    @property
    def name(self) -> str:
        """Return what the endpoint is called where names are needed."""
        return self.act.__name__.strip("_")

    @property
    def rule(self) -> str:
        """Return the path as Flask writes it."""
        return re.sub(r"\{(\w+)\}", r"<\1>", self.path)

    @property
    def changes(self) -> bool:
        """Return whether it changes something, and so needs the token always."""
        return self.method != "GET"

    @property
    def codes(self) -> tuple[str, ...]:
        """Return every code that it can answer."""
        return (*ALWAYS_POSSIBLE, *(("unsupported_media_type",) if self.body else ()), *self.errors)
