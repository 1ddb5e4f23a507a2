"""Builds the JSON answers of the API, and reads the bodies of its requests."""

import logging
import re
from typing import Any, TypeVar

import msgspec
from flask import Response, request
from werkzeug.exceptions import HTTPException

from mempressure.errors import MempressureError
from mempressure_actuator.api.endpoint import ERRORS

_log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20

_Body = TypeVar("_Body")

HTTP_CODES: dict[int, str] = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
"""Error codes of what Flask refuses, by HTTP status."""
_WORDS = {
    "`bool`": "true or false",
    "`str`": "text",
    "`int`": "a whole number",
    "`float`": "a number",
    "`array`": "an array",
    "`object`": "an object",
    "`null`": "null",
}
"""Type names of msgspec's errors, and the words for them in messages."""


class RequestError(MempressureError):
    """A request cannot be carried out as it is.

    Args:
        code: for programs, one of `ERRORS`.
        message: for people: the bad value, and what to send instead.
        headers: of the answer.
    """

    def __init__(self, code: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = ERRORS[code][0]
        self.code = code
        self.headers = headers or {}


def success(data: Any, *, status: int = 200) -> Response:
    """Return the answer to a successful request."""
    return json_answer({"status": "success", "data": data}, status=status)


def json_answer(content: Any, *, status: int = 200) -> Response:
    """Return an answer with exactly this content, which caches must not store."""
    response = Response(msgspec.json.encode(content), status=status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def failure(error: RequestError) -> Response:
    """Return the answer to a request that was refused."""
    content = {"status": "error", "error": {"code": error.code, "message": str(error)}}
    response = json_answer(content, status=error.status)
    response.headers.update(error.headers)
    return response


def http_failure(error: HTTPException) -> Response:
    """Return the answer to what the framework refused: an unknown path, a wrong method, a body too large."""
    if error.code is None or error.code < 400:  # a redirect, which no endpoint here uses
        return Response(status=error.code or 500)
    allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
    message = {
        404: "there is no such path, and a package's name has no slash; GET /api/openapi.json lists the paths",
        405: f"the path does not take this method; send {allowed}",
        413: f"the body has more than {MAX_BODY_BYTES} bytes; send less",
    }.get(error.code, str(error.description))
    response = failure(
        RequestError(HTTP_CODES.get(error.code, "bad_request"), f"{request.method} {request.path:.200}: {message}")
    )
    for name, value in error.get_headers(request.environ):
        if name.lower() != "content-type":
            response.headers[name] = value
    return response


def internal_failure(error: Exception) -> Response:
    """Log an unexpected error, and return an answer without its details."""
    _log.error("request failed: method=%s path=%s", request.method, request.path, exc_info=error)
    return failure(RequestError("internal_error", "the request failed; the actuator's log says why"))


def require_size() -> None:
    """Check that the request's body is not too large, even if the endpoint does not read it.

    Raises:
        RequestError: it is too large.
    """
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    # If a body has no declared length, werkzeug reads this much and silently leaves the rest.
    request.max_content_length = MAX_BODY_BYTES + 1


def json_bytes() -> bytes:
    """Return the request's body.

    Raises:
        RequestError: its Content-Type is not JSON.
    """
    if request.mimetype != "application/json":
        raise RequestError(
            "unsupported_media_type",
            f"Content-Type {request.content_type or 'missing'!r:.100} is not understood; send application/json",
        )
    return body_bytes()


def body_bytes() -> bytes:
    """Return the request's body, whatever its Content-Type.

    Raises:
        RequestError: it is too large.
    """
    body = request.get_data()
    if len(body) > MAX_BODY_BYTES:
        raise _too_large()
    return body


def json_body(kind: type[_Body]) -> _Body:
    """Return the request's body, read as `kind`, which has an `EXAMPLE`.

    Raises:
        RequestError: the body is not of that type; the message has the field, its value and what to send.
    """
    content: Any = None
    try:
        content = msgspec.json.decode(json_bytes())
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise RequestError("bad_request", f"{_mismatch(str(error), content)}; {_wanted(kind)}") from None
    except (ValueError, RecursionError) as error:  # UTF-8 is decoded by Python, with its own error
        raise RequestError("bad_request", f"the body is not JSON in UTF-8, {error}; {_wanted(kind)}") from None


def _too_large() -> RequestError:
    return RequestError("too_large", f"the body has more than {MAX_BODY_BYTES} bytes; send less")


def _mismatch(error: str, content: Any) -> str:
    """Return an error of msgspec in plain words: the field and its value instead of a path and a type."""
    reason, _, path = error.partition(" - at `$.")
    for name, word in _WORDS.items():
        reason = reason.replace(name, word)
    reason = reason[:1].lower() + reason[1:]
    if found := re.fullmatch(r"object (missing required|contains unknown) field `(.*)`", reason, re.DOTALL):
        return f"{found[2]:.60} is {found[1].split()[1].replace('required', 'missing')}"
    field = path.rstrip("`")
    if isinstance(content, dict) and field in content:
        return f"{field}={msgspec.json.encode(content[field]).decode():.60} cannot be used: {reason}"
    return f"the body cannot be used: {reason}"


def _wanted(kind: Any) -> str:
    example = msgspec.json.encode(kind.EXAMPLE).decode()
    optional = [field.name for field in msgspec.structs.fields(kind) if not field.required]
    left_out = f", where {' and '.join(optional)} may be left out" if optional else ""
    return f"send, for example, {example}{left_out}"
