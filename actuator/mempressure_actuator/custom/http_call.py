"""Makes one HTTP request: what is told as its JSON body, bounded in time and in what is read of the answer."""

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from mempressure_actuator.custom.definition import HttpCall, Result, readable

KEPT_BYTES = 2048


def call(target: HttpCall, content: Mapping[str, Any], *, timeout: float) -> Result:
    """Make the request; after `timeout` seconds in all the connection is cut, however slowly it still answers."""
    import requests  # 19 MB, which only an actuator with such actions pays

    with requests.Session() as session, _Deadline(session, timeout) as deadline:
        session.trust_env = False  # no password of a .netrc, no proxy that nobody wrote into the file
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
                said = readable(next(answer.iter_content(KEPT_BYTES), b""))
                status = answer.status_code
        except requests.RequestException as error:
            if not deadline.passed and not isinstance(error, requests.Timeout):
                return Result("failed", _why(error)[:KEPT_BYTES])
            deadline.passed = True
        if deadline.passed:  # headers that were cut off look like complete ones
            return Result("timeout", f"no answer within {timeout:g} s")
    words = f"status {status}" + (f": {said}" if said else "")
    return Result("done" if 200 <= status < 300 else "failed", words)


def _why(error: Exception) -> str:
    """Return what went wrong without path, query and headers: they may be secret, and everybody may read this."""
    kind = type(error).__name__
    if isinstance(error, ValueError):
        return f"{kind}: the URL or a header cannot be used"
    reason = getattr(error.args[0], "reason", None) if error.args else None  # urllib3 names the URL around it
    return f"{kind}: {reason or error}"


class _Deadline:
    """Cuts the connections of a session after some time: its own time limits begin anew with each byte.

    Args:
        session: of requests.
        seconds: after which it cuts.
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
                scheme: _noting(pool, self._sockets) for scheme, pool in pools.pool_classes_by_scheme.items()
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


def _noting(pool: Any, sockets: list[socket.socket]) -> Any:
    """Return a pool whose connections note their sockets: copies, as TLS takes over the originals."""

    class NotedConnection(pool.ConnectionCls):  # type: ignore[misc]  # urllib3's, by scheme
        def _new_conn(self) -> socket.socket:
            made: socket.socket = super()._new_conn()
            sockets.append(made.dup())
            return made

    return type(pool.__name__, (pool,), {"ConnectionCls": NotedConnection})
