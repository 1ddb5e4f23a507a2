"""Probe for an actuator whose control loop runs: one small request on a plain socket, made each second.

Not through `http.client`, which costs a worker megabytes that it need not pay.
"""

import socket
import time
from contextlib import closing
from urllib.parse import urlsplit

PROBE_SECONDS = 1.0
_MAX_BYTES = 4096


def answers(url: str, *, timeout: float = PROBE_SECONDS) -> bool:
    """Return whether an actuator whose control loop runs answers at `url` within `timeout` seconds.

    One that wants a token before it says more, as beyond loopback, counts as one that acts.
    """
    try:
        status, body = _get(url, "/-/ready", timeout)
    except (OSError, ValueError):  # no answer, not in time, a certificate that is not trusted, or no HTTP
        return False
    return (status == 200 and body.strip() == b"ready") or (status == 401 and b'"unauthorized"' in body)


def _get(url: str, path: str, timeout: float) -> tuple[int, bytes]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    deadline = time.monotonic() + timeout
    request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    received = b""
    with (
        closing(socket.create_connection((_looked_up(host), port), timeout)) as plain,  # type: ignore[arg-type]  # bytes may be
        closing(_secured(plain, host) if parts.scheme == "https" else plain) as connection,
    ):
        connection.sendall(request.encode("ascii"))
        while len(received) < _MAX_BYTES:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            part = connection.recv(_MAX_BYTES)
            if not part:
                break
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return int(words[1]) if words[0].startswith(b"HTTP/1.") and len(words) > 1 else 0, body


def _looked_up(host: str) -> str | bytes:
    # As a str it would be encoded by IDNA, whose tables are 0.4 MB.
    return host.encode() if host.isascii() else host


def _secured(connection: socket.socket, host: str) -> socket.socket:
    import ssl  # most actuators are on loopback, without TLS

    return ssl.create_default_context().wrap_socket(connection, server_hostname=host)
