"""The form of every JSON answer, and of every request's body."""

from typing import Any, TypeVar

import msgspec
from flask import Response, request
from werkzeug.exceptions import HTTPException

from mempressure.errors import MempressureError

MAX_BODY_BYTES = 1 << 20

_Body = TypeVar("_Body")


class RequestError(MempressureError):
    """A request cannot be carried out as it is.

    Args:
        status: of the answer.
        code: what a program may look at.
        message: what a person reads: the bad value, and what to send instead.
        headers: of the answer.
    """

    def __init__(self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


def success(data: Any, *, status: int = 200) -> Response:
    """Return an answer with its data."""
    return _json({"status": "success", "data": data}, status)


def failure(error: RequestError) -> Response:
    """Return the answer to a request that cannot be carried out."""
    response = _json({"status": "error", "error": {"code": error.code, "message": str(error)}}, error.status)
    response.headers.update(error.headers)
    return response


def http_failure(error: HTTPException) -> Response:
    """Return the answer to what the framework refused: an unknown path, a wrong method, a body too large."""
    if error.code is None or error.code < 400:  # a redirect, which nothing here answers with
        return Response(status=error.code or 500)
    code = error.name.lower().replace(" ", "_")
    message = f"{request.method} {request.path}: {error.description}"
    response = failure(RequestError(error.code, code, message))
    for name, value in error.get_headers(request.environ):
        if name.lower() != "content-type":
            response.headers[name] = value
    return response


def require_size() -> None:
    """Check that the request's body is not too large, whether anybody is going to look at it or not.

    Raises:
        RequestError: it is.
    """
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise RequestError(413, "too_large", f"the body has more than {MAX_BODY_BYTES} bytes; send less")


def json_bytes() -> bytes:
    """Return the request's body.

    Raises:
        RequestError: it is not declared as JSON.
    """
    if request.mimetype != "application/json":
        raise RequestError(
            415,
            "unsupported_media_type",
            f"Content-Type {request.content_type or 'missing'!r:.100} is not understood; send application/json",
        )
    return request.get_data(cache=False)


def json_body(kind: type[_Body]) -> _Body:
    """Return the request's body, read as `kind`.

    Raises:
        RequestError: it does not fit; the message names the field.
    """
    return decoded(json_bytes(), kind)


def decoded(body: bytes, kind: type[_Body]) -> _Body:
    """Return `body`, read as `kind`.

    Raises:
        RequestError: it does not fit; the message names the field.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(400, "bad_request", f"the body does not fit: {error}") from None


def _json(content: Any, status: int) -> Response:
    response = Response(msgspec.json.encode(content), status=status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
