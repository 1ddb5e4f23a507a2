"""The description of an endpoint: its path, the types it takes and returns, and its errors; and every error code."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

ERRORS = MappingProxyType(
    {
        "bad_request": (400, "A value or a field cannot be used; nothing was changed."),
        "invalid_notification": (400, "The body is not a notification, or none of its alerts can be used."),
        "unauthorized": (401, "The token is missing or wrong."),
        "cross_origin": (403, "The request was sent by a page of another site."),
        "not_found": (404, "There is no such path."),
        "unknown_package": (404, "No worker tracks the package."),
        "method_not_allowed": (405, "The path has other methods."),
        "too_many": (409, "The limit of preferences is reached."),
        "too_large": (413, "The body is too large."),
        "unsupported_media_type": (415, "The body is not declared as application/json."),
        "misdirected_request": (421, "A server on loopback was addressed by another name."),
        "internal_error": (500, "A bug; the log has more."),
        "not_measured": (503, "The host cannot be measured."),
        "not_stored": (503, "It cannot be stored; nothing was changed."),
        "not_read": (503, "The store cannot be read."),
        "busy": (503, "Too many requests wait for the workers, or too many passwords to be checked."),
        "overloaded": (503, "Too many notifications are being stored."),
    }
)
"""Every error code: its HTTP status, and when it is answered."""

ALWAYS_POSSIBLE = (
    "bad_request",
    "unauthorized",
    "cross_origin",
    "too_large",
    "misdirected_request",
    "internal_error",
    "busy",
)
"""Error codes that any endpoint can answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    """With parameters as OpenAPI writes them: /api/packages/{package}/unload."""
    act: Callable[..., Any]
    """The function that answers; its docstring is the description."""
    answer: Any = None
    """The type of the answer's `data`; None if the answer is not JSON."""
    pages: tuple[str, ...] = ("application/json",)
    """The media types of the answer."""
    statuses: tuple[int, ...] = (200,)
    """HTTP statuses of answers that are not errors."""
    body: Any = None
    """The type of the request's body, which has an EXAMPLE; None if the body is not read."""
    body_required: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The types of the parameters in the path."""
    query: Mapping[str, Any] = field(default_factory=dict)
    """The types of the parameters in the query, all optional."""
    errors: tuple[str, ...] = ()
    """Codes of `ERRORS` besides those of a body and `ALWAYS_POSSIBLE`."""

    @property
    def name(self) -> str:
        """Return the endpoint's name, for Flask and as OpenAPI's operationId."""
        return self.act.__name__.strip("_")

    @property
    def rule(self) -> str:
        """Return the path as Flask writes it."""
        return re.sub(r"\{(\w+)\}", r"<\1>", self.path)

    @property
    def changes(self) -> bool:
        """Return whether it changes something, and so always needs the token."""
        return self.method != "GET"

    @property
    def codes(self) -> tuple[str, ...]:
        """Return every code that it can answer."""
        return (*ALWAYS_POSSIBLE, *(("unsupported_media_type",) if self.body else ()), *self.errors)
