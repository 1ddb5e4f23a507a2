"""What turns the requests of `mempressure.http.server` into WSGI's, for Flask.

The exporter's server, because no other stands every attack: hypercorn's asyncio server has no limit on connections, and
1,000 idle clients left it without descriptors for the webhook; cheroot and gunicorn's threads are blocked by 50.
"""

import io
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from mempressure.http.connection import Limits
from mempressure.http.messages import Answer, Request, Response
from mempressure_actuator.api.answers import MAX_BODY_BYTES

AT_ONCE = 16
"""Requests that are carried out at once: more than may wait for the workers, so that a webhook always finds room."""
LIMITS = Limits(body_bytes=MAX_BODY_BYTES, stop_seconds=90.0)
"""At a stop, running requests have as long as an order may take, a worker's successor included."""
_WAIT_SECONDS = 10.0
_BUSY = b'{"status":"error","error":{"code":"busy","message":"too many requests are carried out; send it again later"}}'

_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve_wsgi(application: _Application, *, at_once: int = AT_ONCE, wait_seconds: float = _WAIT_SECONDS) -> Answer:
    """Return what answers requests from a WSGI application.

    Args:
        application: its answers are held in memory before they are sent.
        at_once: how many requests it is given at once.
        wait_seconds: how long another request waits for its turn, before it is answered 503.
    """
    turns = threading.BoundedSemaphore(at_once)

    def answer(request: Request) -> Response:
        if not turns.acquire(timeout=wait_seconds):
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, "application/json", _BUSY, (("Retry-After", "5"),))
        try:
            return _call(application, request)
        finally:
            turns.release()

    return answer


def _call(application: _Application, request: Request) -> Response:
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Callable[[bytes], Any]:
        started[:] = [(status, headers)]
        return lambda _: None  # nothing here writes

    parts = application(_environ(request), start_response)
    try:
        body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    ((status, headers),) = started
    content_type = next((value for name, value in headers if name.lower() == "content-type"), "")
    return Response(int(status[:3]), content_type, body, tuple(headers))


def _environ(request: Request) -> dict[str, Any]:
    """Return the request as PEP 3333 has it.

    Nothing is taken from headers about proxies: whoever sends them may lie.
    """
    host, _, port = request.headers.get("Host", "").rpartition(":")
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": urllib.parse.unquote_to_bytes(request.path).decode("latin-1"),
        "QUERY_STRING": request.query,
        "SERVER_NAME": host or "localhost",
        "SERVER_PORT": port if port.isdecimal() else "0",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": request.client,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if request.encrypted else "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        # Of a body that is too large there is the length only, by which the application refuses it.
        "CONTENT_LENGTH": str(request.body_size),
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        # A name with an underscore could pass for another one with a dash.
        if "_" in name or key in {"CONTENT_LENGTH", "CONTENT_TYPE", "TRANSFER_ENCODING"}:
            continue
        key = f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ
