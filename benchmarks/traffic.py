"""Traffic: clients that ask as fast as they are answered, each on a connection of its own, and compare every answer.

A connection that the server closes between two requests is opened anew: a request that was sent on it and got not
one byte of an answer is sent once more, as every HTTP client does, and counted as such. All else that is not the
known answer with status 200 is a failure.
"""

import http.client
import random
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.statistics import quantile

EXAMPLES = 5


class Page(NamedTuple):
    """What is asked for, how often compared with the others, and the known answer."""

    path: str
    weight: float
    known: bytes


class Phase:
    """What happened to the requests that began while it lasted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.latencies: list[float] = []
        self.wrong = 0
        self.failed = 0
        self.retried = 0
        self.examples: list[str] = []
        self._started = time.monotonic()
        self._seconds = 0.0

    def end(self) -> None:
        """Note how long it lasted."""
        self._seconds = time.monotonic() - self._started

    def take(self, page: Page, status: int, body: bytes, seconds: float) -> None:
        """Take in one answer; status 0 where there was none, `body` then says why."""
        self.latencies.append(seconds)
        if (status, body) == (http.client.OK, page.known):
            return
        if status == http.client.OK:
            self.wrong += 1
        else:
            self.failed += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{page.path}: {status} {body!r:.300}")

    @property
    def rate(self) -> float:
        """Return how many requests were answered each second, once it has ended."""
        return len(self.latencies) / self._seconds

    def row(self) -> list[str]:
        """Return a row for the report: requests, per second, failed, wrong, sent again, p50, p99 and maximum in ms."""
        ordered = sorted(self.latencies)
        times = [f"{1000 * value:.1f}" for value in (quantile(ordered, 0.5), quantile(ordered, 0.99), ordered[-1])]
        return [f"{len(ordered)}", f"{self.rate:.0f}", f"{self.failed}", f"{self.wrong}", f"{self.retried}", *times]


class Traffic:
    """Clients in threads; what they meet is noted in the phase that `phase` is when a request begins.

    Args:
        port: of the server, on loopback.
        pages: what to ask for.
        clients: how many.
        kept: whether each keeps its connection; else it makes one for each request, as most proxies do: several workers
            that accept from one socket share new connections better than kept ones.
    """

    COLUMNS = ("requests", "a second", "failed", "wrong", "sent again", "p50 ms", "p99 ms", "max ms")

    def __init__(self, port: int, pages: Sequence[Page], *, clients: int = 16, kept: bool = True) -> None:
        self.phase = Phase("start")
        self._port = port
        self._pages = pages
        self._weights = [page.weight for page in pages]
        self._headers = {} if kept else {"Connection": "close"}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(clients)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def begin(self, name: str) -> Phase:
        """End the phase that is, and begin another, which is returned."""
        self.phase.end()
        self.phase = Phase(name)
        return self.phase

    def stop(self) -> None:
        """End, after the requests under way.

        Raises:
            RuntimeError: a request has had no answer for two minutes.
        """
        self.phase.end()
        self._stopping.set()
        for thread in self._threads:
            thread.join(120)
            if thread.is_alive():
                raise RuntimeError("a request has had no answer for two minutes")

    def _client(self, number: int) -> None:
        choose = random.Random(number).choices  # noqa: S311 -- a repeatable load, no secret
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=100)
        while not self._stopping.is_set():
            (page,) = choose(self._pages, self._weights)
            self._ask(connection, page)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, page: Page) -> None:
        phase, started = self.phase, time.monotonic()
        reused = connection.sock is not None
        try:
            try:
                answer = _answer(connection, page.path, self._headers)
            except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
                if not reused:
                    raise
                connection.close()
                answer = _answer(connection, page.path, self._headers)
                with self._lock:
                    phase.retried += 1
            status, body = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            status, body = 0, f"{type(error).__name__}: {error}".encode()
        with self._lock:
            phase.take(page, status, body, time.monotonic() - started)


def _answer(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Send a request and return its answer, of which the status line has arrived."""
    connection.request("GET", path, headers=headers)
    return connection.getresponse()
