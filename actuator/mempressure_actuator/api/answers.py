"""The form of every JSON answer, and of every request's body."""

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
"""The code of what the framework refuses, by status."""
_WORDS = {
    "`bool`": "true or false",
    "`str`": "text",
    "`int`": "a whole number",
    "`float`": "a number",
    "`array`": "an array",
    "`object`": "an object",
    "`null`": "null",
}
"""What msgspec calls the types, and what people do."""


class RequestError(MempressureError):
    """A request cannot be carried out as it is.

    Args:
        code: what a program may look at, one of `ERRORS`.
        message: what a person reads: the bad value, and what to send instead.
        headers: of the answer.
    """

    def __init__(self, code: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = ERRORS[code][0]
        self.code = code
        self.headers = headers or {}


def success(data: Any, *, status: int = 200) -> Response:
    """Return an answer with its data."""
    return json_answer({"status": "success", "data": data}, status=status)


def json_answer(content: Any, *, status: int = 200) -> Response:
    """Return an answer of exactly this content, which nobody is to keep."""
    response = Response(msgspec.json.encode(content), status=status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def failure(error: RequestError) -> Response:
    """Return the answer to a request that cannot be carried out."""
    content = {"status": "error", "error": {"code": error.code, "message": str(error)}}
    response = json_answer(content, status=error.status)
    response.headers.update(error.headers)
    return response


def http_failure(error: HTTPException) -> Response:
    """Return the answer to what the framework refused: an unknown path, a wrong method, a body too large."""
    if error.code is None or error.code < 400:  # a redirect, which nothing here answers with
        return Response(status=error.code or 500)
    allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
    message = {
        404: "there is no such path, and a package's name has no slash; GET /api/openapi.json lists what there is",
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
    """Log an error that nobody foresaw, and return an answer that says nothing of it."""
    _log.error("request failed: method=%s path=%s", request.method, request.path, exc_info=error)
    return failure(RequestError("internal_error", "the request failed; the actuator's log says why"))


def require_size() -> None:
    """Check that the request's body is not too large, whether anybody is going to look at it or not.

    Raises:
        RequestError: it is.
    """
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    # Of a body that does not say how long it is, werkzeug reads this much and leaves the rest without a word.
    request.max_content_length = MAX_BODY_BYTES + 1


def json_bytes() -> bytes:
    """Return the request's body.

    Raises:
        RequestError: it is not declared as JSON.
    """
    if request.mimetype != "application/json":
        raise RequestError(
            "unsupported_media_type",
            f"Content-Type {request.content_type or 'missing'!r:.100} is not understood; send application/json",
        )
    return body_bytes()


def body_bytes() -> bytes:
    """Return the request's body, however it is declared.

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
        RequestError: it does not fit; the message names the field, the value and what to send.
    """
    content: Any = None
    try:
        content = msgspec.json.decode(json_bytes())
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise RequestError("bad_request", f"{_misfit(str(error), content)}; {_wanted(kind)}") from None
    except (ValueError, RecursionError) as error:  # UTF-8 is decoded by Python, with its own error
        raise RequestError("bad_request", f"the body is no JSON in UTF-8, {error}; {_wanted(kind)}") from None


def _too_large() -> RequestError:
    return RequestError("too_large", f"the body has more than {MAX_BODY_BYTES} bytes; send less")


def _misfit(error: str, content: Any) -> str:
    """Return what does not fit, from an error of msgspec: the field and its value instead of a path and a type."""
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
    return f"send such as {example}{left_out}"
