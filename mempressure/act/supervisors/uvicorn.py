"""uvicorn with `--workers`: drained first, since its own end cuts connections that a request is on its way to.

Measured with two workers under load: SIGTERM alone fails 315 of 303,337 requests, draining first none of 340,267.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from mempressure.act.supervisors.base import Grace, Supervisor, Work, find_on_main_thread, terminate
from mempressure.measure.reading import UNKNOWN

DRAIN_SECONDS = 2.0
"""How long open connections get to send one more request, whose answer closes the connection."""
_POLL_SECONDS = 0.02
_CLOSE = (b"connection", b"close")


class Uvicorn(Supervisor):
    """The parent of this uvicorn server, if it runs with workers.

    Args:
        server: the `uvicorn.Server`.
        supervised: whether uvicorn's multiprocess supervisor started this process.
    """

    role = "worker"

    def __init__(self, server: Any, *, supervised: bool) -> None:
        self._server = server
        self._draining = False
        self._seen: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._answered = -1
        self._last_work = UNKNOWN
        self.kind = "uvicorn" if supervised else ""
        self.pid = os.getppid() if supervised else 0

    @property
    def serving(self) -> bool:
        """Return whether the server has started and is not ending."""
        return bool(self._server.started and not self._server.should_exit and not self._draining)

    @property
    def recycle_refused(self) -> str:
        """Return why nothing would replace it, or connections would be cut."""
        config = self._server.config
        if config.should_reload:
            return "uvicorn runs with --reload, which replaces a process only when a file changes"
        if not self.kind:
            return "uvicorn runs without --workers, and nothing would replace this process"
        if getattr(config, "http2", False):
            return "uvicorn serves HTTP/2, whose connections cannot be drained from outside"
        connections = tuple(self._server.server_state.connections)
        open_ones = sum(map(_is_websocket, connections))
        if open_ones:
            return f"uvicorn has {open_ones} open WebSocket{'s' * (open_ones > 1)}, which ending would cut"
        streams = 0 if self.grace is not None else sum(map(_streams, connections))
        if streams:
            return (
                f"uvicorn is sending {streams} response{'s' * (streams > 1)} without a declared length, which need not "
                "end, and runs without --timeout-graceful-shutdown: it would wait for the end for ever"
            )
        return ""

    @property
    def grace(self) -> Grace | None:
        """Return the configured limit; without one the server waits for ever."""
        seconds = self._server.config.timeout_graceful_shutdown
        return None if seconds is None else (seconds, "uvicorn's timeout_graceful_shutdown")

    def running_seconds(self) -> float:
        """Return how long ago the oldest of the requests under way was first seen by a call of this method."""
        now = time.monotonic()
        under_way = tuple(self._server.server_state.tasks)
        return now - min((self._seen.setdefault(task, now) for task in under_way), default=now)

    def work(self) -> Work:
        """Return the requests and WebSockets under way, and when this method last saw some or found more answered."""
        state = self._server.server_state
        under_way, answered = len(state.tasks), state.total_requests
        if self._server.started and (under_way or answered != self._answered):
            self._answered, self._last_work = answered, time.time()
        return under_way, self._last_work

    def at_serving(self, begin: Callable[[], None]) -> None:
        """Have `begin` called once the server has started, before anything it has accepted is read."""
        if self._server.started:
            return
        main_loop = self._server.main_loop

        async def begin_and_loop() -> None:
            begin()
            await main_loop()

        self._server.main_loop = begin_and_loop

    def at_end(self, leave: Callable[[], None]) -> None:
        """Have `leave` called after the server's shutdown: uvicorn then ends by the signal that it got."""
        shutdown = self._server.shutdown

        async def shutdown_and_leave(*args: Any, **kwargs: Any) -> None:
            await shutdown(*args, **kwargs)
            leave()

        self._server.shutdown = shutdown_and_leave

    def retire(self) -> bool:
        """Stop accepting, have every connection close with its next answer, and end once none is left."""
        self._draining = True
        self._server.servers[0].get_loop().call_soon_threadsafe(self._stop_accepting)
        deadline = time.monotonic() + DRAIN_SECONDS
        empty = 0
        # Twice in a row: what was accepted a moment ago is counted a moment later.
        while time.monotonic() < deadline and empty < 2:
            time.sleep(_POLL_SECONDS)
            empty = 0 if self._server.server_state.connections else empty + 1
        terminate()
        return True

    def _stop_accepting(self) -> None:
        for listener in self._server.servers:
            listener.close()  # in this process only: the parent and the other workers keep the socket and its backlog
        # The second list is made anew from the first once a second, and is what requests under way hold.
        self._server.config.encoded_headers.append(_CLOSE)
        self._server.server_state.default_headers.append(_CLOSE)


def find() -> Uvicorn | None:
    """Return the supervisor of this process if it runs a uvicorn server."""
    server = find_on_main_thread("uvicorn.server", "Server")
    if server is None:
        return None
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        return None  # a worker has forked it, and nothing would replace it
    return Uvicorn(server, supervised=find_on_main_thread("uvicorn.supervisors.multiprocess", "Process") is not None)


def is_supervisor() -> bool:
    """Return whether this process starts uvicorn's workers, or restarts one when a file changes."""
    return any(
        find_on_main_thread(f"uvicorn.supervisors.{module}", name) is not None
        for module, name in (("multiprocess", "Multiprocess"), ("basereload", "BaseReload"))
    )


def _is_websocket(connection: object) -> bool:
    return type(connection).__module__.startswith("uvicorn.protocols.websockets.")


def _streams(connection: object) -> bool:
    """Return whether a response is being sent on a connection whose length the application has not declared."""
    cycle = getattr(connection, "cycle", None)
    if cycle is None or not cycle.response_started or cycle.response_complete:
        return False
    if hasattr(cycle, "chunked_encoding"):
        return bool(cycle.chunked_encoding)
    # With h11 only its writer of the body tells, which is of this class where there is a Content-Length.
    return type(getattr(cycle.conn, "_writer", None)).__name__ in {"ChunkedWriter", "Http10Writer"}
