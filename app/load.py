"""A load for the sample: clients that work it, check every answer, and can let its packages fall idle.

python -m app.load --url http://127.0.0.1:8000 --seconds 30
"""

import argparse
import math
import random
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import requests
from requests.adapters import HTTPAdapter


class WrongAnswerError(Exception):
    """The sample answered something that is not so."""


def check_ping(answer: requests.Response) -> None:
    """Check the answer of /ping."""
    if not isinstance(answer.json()["pid"], int):
        raise WrongAnswerError(f"/ping: {answer.text!r:.100}")


def check_report(rows: int) -> Callable[[requests.Response], None]:
    """Return the check of /report, computed without pandas."""
    expected = {str(month): sum(range(month, rows, 12)) for month in range(min(12, rows))}

    def check(answer: requests.Response) -> None:
        if answer.json() != expected:
            raise WrongAnswerError(f"/report?rows={rows}: {answer.text!r:.100}")

    return check


def check_derivative(exponent: int) -> Callable[[requests.Response], None]:
    """Return the check of /derivative: its value at points, by the binomial theorem, without sympy."""

    def check(answer: requests.Response) -> None:
        text = answer.json()["derivative"]
        for x in (0, 1, 2, 5):
            expected = exponent * (x + 1) ** (exponent - 1)
            if _polynomial_at(text, x) != expected:
                raise WrongAnswerError(f"/derivative?exponent={exponent} at {x}: {text!r:.100}")

    return check


def _polynomial_at(text: str, x: int) -> int:
    """Return the value of a sum of terms like 12*x**3, x, 7 at `x`."""
    total = 0
    for term in text.replace("- ", "+ -").split(" + "):
        factor, _, power = term.partition("x")
        coefficient = int(factor.rstrip("*") or 1)
        exponent = int(power.removeprefix("**") or 1) if "x" in term else 0
        total += coefficient * x**exponent
    return total


class PlotCheck:
    """The check of /plot: a PNG of the right size, and always the same bytes for the same points."""

    def __init__(self) -> None:
        self._seen: dict[int, bytes] = {}

    def of(self, points: int) -> Callable[[requests.Response], None]:
        """Return the check for a number of points."""

        def check(answer: requests.Response) -> None:
            picture = answer.content
            if picture[:8] != b"\x89PNG\r\n\x1a\n" or struct.unpack(">II", picture[16:24]) != (320, 240):
                raise WrongAnswerError(f"/plot?points={points}: no PNG of 320 by 240")
            if self._seen.setdefault(points, picture) != picture:
                raise WrongAnswerError(f"/plot?points={points}: another picture than before")

        return check


KINDS = ("ping", "report", "plot", "derivative")
"""Requests: /report uses pandas, /plot matplotlib, /derivative sympy, /ping none of them."""

REQUESTS_A_CONNECTION = 20
"""After so many requests a client connects anew, so that every worker gets its share."""


class Load:
    """Clients in threads, each with a keep-alive connection.

    Args:
        url: of the sample.
        clients: how many.
        pause_seconds: between two requests of one client, on average.
    """

    def __init__(self, url: str, *, clients: int = 8, pause_seconds: float = 0.05) -> None:
        self.url = url.rstrip("/")
        self.requests = 0
        self.failures: list[str] = []
        self.latencies: deque[float] = deque(maxlen=100_000)
        self._clients = clients
        self._pause = pause_seconds
        self._kinds: tuple[str, ...] = KINDS
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._plots = PlotCheck()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin."""
        for number in range(self._clients):
            thread = threading.Thread(target=self._client, args=(number,), name=f"client-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def use_only(self, *kinds: str) -> None:
        """Go on with requests of these kinds only."""
        self._kinds = kinds

    def fall_idle(self) -> None:
        """Go on with requests that need no heavy package."""
        self.use_only("ping")

    def work(self) -> None:
        """Use all packages."""
        self.use_only(*KINDS)

    def stop(self) -> None:
        """End, after the requests under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)

    def _client(self, number: int) -> None:
        rng = random.Random(number)  # noqa: S311 -- a repeatable load, no secret
        while not self._stopping.is_set():
            with requests.Session() as session:
                # A connection that the server closed between two requests is opened anew; no request is sent twice.
                session.mount("http://", HTTPAdapter(pool_maxsize=1, max_retries=0))
                for _ in range(REQUESTS_A_CONNECTION):
                    if not self._stopping.is_set():
                        self._request(session, *self._next(rng))
                        self._stopping.wait(rng.expovariate(1 / self._pause))

    def _next(self, rng: random.Random) -> tuple[str, Callable[[requests.Response], None]]:
        kind = rng.choice(self._kinds)
        if kind == "report":
            rows = rng.choice((10, 100, 1_000))
            return f"/report?rows={rows}", check_report(rows)
        if kind == "plot":
            points = rng.choice((2, 10, 100))
            return f"/plot?points={points}", self._plots.of(points)
        if kind == "derivative":
            exponent = rng.randint(2, 12)
            return f"/derivative?exponent={exponent}", check_derivative(exponent)
        return "/ping", check_ping

    def _request(self, session: requests.Session, path: str, check: Callable[[requests.Response], None]) -> None:
        started = time.monotonic()
        problem = ""
        try:
            answer = session.get(self.url + path, timeout=60)
            if answer.status_code == requests.codes.ok:
                check(answer)
            else:
                problem = f"{path}: status {answer.status_code}: {answer.text!r:.200}"
        except (requests.RequestException, WrongAnswerError, KeyError, ValueError) as error:
            problem = f"{path}: {type(error).__name__}: {error}"
        with self._lock:
            self.requests += 1
            self.latencies.append(time.monotonic() - started)
            if problem:
                self.failures.append(problem)


def main() -> int:
    """Run a load from the command line; exit 1 if a request failed."""
    parser = argparse.ArgumentParser(prog="python -m app.load", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=math.inf)
    options = parser.parse_args()
    load = Load(options.url, clients=options.clients)
    load.start()
    with suppress(KeyboardInterrupt):
        threading.Event().wait(None if math.isinf(options.seconds) else options.seconds)
    load.stop()
    print(f"{load.requests} requests, {len(load.failures)} failed")
    for failure in load.failures[:20]:
        print(f"  {failure}", file=sys.stderr)
    return 1 if load.failures else 0


if __name__ == "__main__":
    sys.exit(main())
