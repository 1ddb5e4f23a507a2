"""Makes an action's HTTP request, limited in time and in how much of the response is read."""

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from mempressure_actuator.custom.definition import HttpCall, Result, readable

KEPT_BYTES = 2048


def call(target: HttpCall, content: Mapping[str, Any], *, timeout: float) -> Result:
    """Send `content` as JSON; the connection is closed `timeout` seconds after the start, even during the response."""
    import requests  # 19 MB, only for actuators that have such actions

    with requests.Session() as session, _Deadline(session, timeout) as deadline:
        session.trust_env = False  # no password from .netrc, no proxy from the environment
        try:
            with session.request(
                target.method,
                target.url,
                json=content,
                headers=dict(target.headers),
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            ) as answer:
                text = readable(next(answer.iter_content(KEPT_BYTES), b""))
                status = answer.status_code
        except requests.RequestException as error:
            if not deadline.passed and not isinstance(error, requests.Timeout):
                return Result("failed", _why(error)[:KEPT_BYTES])
            deadline.passed = True
        if deadline.passed:  # truncated headers look like complete ones
            return Result("timeout", f"no answer within {timeout:g} s")
    words = f"status {status}" + (f": {text}" if text else "")
    return Result("done" if 200 <= status < 300 else "failed", words)


def _why(error: Exception) -> str:
    """Return the error without path, query and headers: they may be secret, and the history is readable."""
    kind = type(error).__name__
    if isinstance(error, ValueError):
        return f"{kind}: the URL or a header cannot be used"
    reason = getattr(error.args[0], "reason", None) if error.args else None  # urllib3 names the URL around it
    return f"{kind}: {reason or error}"


class _Deadline:
    """Closes the connections of a session after a time limit; the session's own limit restarts with each byte.

    Args:
        session: a `requests.Session`.
        seconds: the limit.
    """

    def __init__(self, session: Any, seconds: float) -> None:
        from requests.adapters import HTTPAdapter

        self.passed = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        for prefix in ("http://", "https://"):
            adapter = HTTPAdapter()
            pools = adapter.poolmanager
            pools.pool_classes_by_scheme = {
                scheme: _recording(pool, self._sockets) for scheme, pool in pools.pool_classes_by_scheme.items()
            }
            session.mount(prefix, adapter)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        for opened in self._sockets:
            opened.close()

    def _cut(self) -> None:
        self.passed = True
        for opened in self._sockets:
            with suppress(OSError):  # closed already
                opened.shutdown(socket.SHUT_RDWR)


def _recording(pool: Any, sockets: list[socket.socket]) -> Any:
    """Return a pool class whose connections add copies of their sockets to `sockets`; TLS takes over the originals."""

    class RecordedConnection(pool.ConnectionCls):  # type: ignore[misc]  # urllib3's, by scheme
        def _new_conn(self) -> socket.socket:
            made: socket.socket = super()._new_conn()
            sockets.append(made.dup())
            return made

    return type(pool.__name__, (pool,), {"ConnectionCls": RecordedConnection})
