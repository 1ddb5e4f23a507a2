"""The HTTP server: hypercorn, with Flask in threads behind a body limit of its own.

Hypercorn's WSGI bridge hands a request that the client broke off to the application as if it were complete, and
answers one that is too large without a word; here the first is dropped, and the second gets the application's answer.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from flask import Flask
from hypercorn.app_wrappers import WSGIWrapper
from hypercorn.asyncio import serve
from hypercorn.config import Config

from mempressure.errors import ConfigurationError
from mempressure.web.address import ListenAddress
from mempressure_actuator.answers import MAX_BODY_BYTES

_log = logging.getLogger(__name__)

THREADS = 16
"""More than may wait for the workers at once, so that a webhook always finds one."""
READ_TIMEOUT_SECONDS = 30
"""Without a byte from the client; also how long an idle connection is kept."""
STOP_SECONDS = 90.0
"""For running requests: as long as an order may take, a worker's successor included."""
_MOST_READ_BYTES = 32 * MAX_BODY_BYTES
"""Of a body that is too large, and thrown away: a client that still sends when it is cut off may lose the answer."""


class _NeverEmpty:
    """A WSGI answer with an empty part at its end: without any part, as for HEAD, hypercorn never begins to answer."""

    def __init__(self, application: Any, environ: Any, start_response: Any) -> None:
        self._parts = application(environ, start_response)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts
        yield b""

    def close(self) -> None:
        if hasattr(self._parts, "close"):
            self._parts.close()


class Bridge:
    """An ASGI application that runs a WSGI one in threads, for requests whose bodies arrived whole.

    Args:
        application: the WSGI application; its answers are held in memory before they are sent.
        limit: of a body, in bytes.
    """

    def __init__(self, application: Any, *, limit: int = MAX_BODY_BYTES) -> None:
        self._wsgi = WSGIWrapper(partial(_NeverEmpty, application), limit)
        self._limit = limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request, or whatever else the server says."""
        if scope["type"] == "http":
            arrived = await self._body(receive)
            if arrived is None:
                return
            body, size = arrived
            # Of a body that is too large the application gets the length, by which it refuses the request.
            scope = _with_length(scope, size)
            receive = _replay(bytes(body))
        answer: list[Any] = []

        async def send_all(message: Any) -> None:
            while answer:
                await send(answer.pop(0))
            await send(message)

        # Kept until the thread is done: sent from there, each part would cost two switches of threads.
        def keep(_send: Any, message: Any) -> None:
            answer.append(message)

        spawn = partial(asyncio.get_running_loop().run_in_executor, None)
        await self._wsgi(scope, receive, send_all, spawn, keep)

    async def _body(self, receive: Any) -> tuple[bytearray, int] | None:
        """Return the body, empty where it is too large, and how many bytes arrived; None where the client broke off."""
        body, size, complete = bytearray(), 0, False
        while not complete and size <= _MOST_READ_BYTES:
            message = await receive()
            if message["type"] != "http.request":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size <= self._limit:
                body += part
            else:
                body.clear()
            complete = not message.get("more_body", False)
        return body, size


def _with_length(scope: Any, size: int) -> Any:
    """Say how long the body is: WSGI knows no chunks."""
    framing = (b"content-length", b"transfer-encoding")
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in framing]
    return {**scope, "headers": [*headers, (b"content-length", str(size).encode())]}


def _replay(body: bytes) -> Any:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def listen(address: ListenAddress) -> socket.socket:
    """Return a socket that is bound to `address`.

    Raises:
        ConfigurationError: the address is not known here, or in use.
    """
    try:
        if not address.host and socket.has_dualstack_ipv6():
            return socket.create_server(("", address.port), family=socket.AF_INET6, dualstack_ipv6=True)
        family = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}") from error


def run(application: Flask, listener: socket.socket, *, on_stop: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish.

    Args:
        application: what answers.
        listener: a bound socket, which is used up.
        on_stop: called when the signal arrives.
    """
    asyncio.run(_serve(application, listener, on_stop))


async def _serve(application: Flask, listener: socket.socket, on_stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="request"))
    stopped = asyncio.Event()

    def stop() -> None:
        _log.info("stopping")
        on_stop()
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    host, port = listener.getsockname()[:2]
    _log.info("listening: address=%s", ListenAddress(host, port))
    await serve(Bridge(application), _configuration(listener), shutdown_trigger=stopped.wait, mode="asgi")


def _configuration(listener: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.read_timeout = READ_TIMEOUT_SECONDS
    config.keep_alive_timeout = READ_TIMEOUT_SECONDS
    config.keep_alive_max_requests = 1_000_000
    config.graceful_timeout = STOP_SECONDS
    config.include_server_header = False
    # Its own line about where it listens would be a second one, in a format of its own.
    logger = logging.getLogger("hypercorn.error")
    logger.setLevel(logging.WARNING)
    config.errorlog = logger
    return config
