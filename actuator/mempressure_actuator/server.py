"""Serves a WSGI application, such as Flask's, from `mempressure.http.server`, which the exporter uses as well.

Other servers were tried and do not withstand idle clients: hypercorn's asyncio server has no limit on connections, and
1,000 idle clients left it without descriptors for the webhook; 50 block the threads of cheroot and gunicorn.
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
"""Requests carried out at once: more than may wait for the workers, so that a webhook always has a place."""
LIMITS = Limits(body_bytes=MAX_BODY_BYTES, stop_seconds=90.0)
"""At a stop, running requests have as long as an order may take, including the start of a worker's successor."""
_WAIT_SECONDS = 10.0
_BUSY = b'{"status":"error","error":{"code":"busy","message":"too many requests are carried out; send it again later"}}'

_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve_wsgi(application: _Application, *, at_once: int = AT_ONCE, wait_seconds: float = _WAIT_SECONDS) -> Answer:
    """Return a function that answers requests by calling a WSGI application.

    Args:
        application: its responses are collected in memory before they are sent.
        at_once: how many requests it handles at once.
        wait_seconds: how long a further request waits before it is answered 503.
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
        return lambda _: None  # Flask does not use the write callable

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
    """Return the request as a WSGI environment (PEP 3333).

    Headers of proxies do not change it: any client can send them.
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
        # A body that is too large was not read: the application refuses it by its length.
        "CONTENT_LENGTH": str(request.body_size),
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        # A name with an underscore would be taken for one with a dash.
        if "_" in name or key in {"CONTENT_LENGTH", "CONTENT_TYPE", "TRANSFER_ENCODING"}:
            continue
        key = f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ
