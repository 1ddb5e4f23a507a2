"""Rate limiting of requests with a token bucket."""

import re
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from mempressure.http.messages import Answer, Request, Response, plain

_UNITS = MappingProxyType({"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0})
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)


class RateLimit:
    """A token bucket: allows `burst` requests at once, and one more after each interval.

    Args:
        interval: seconds in which one token is added.
        burst: the most tokens that the bucket holds.
        clock: returns seconds that never decrease.
    """

    def __init__(self, *, interval: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = float(burst)
        self._filled = clock()

    def allows(self) -> bool:
        """Return whether a request is allowed, and take a token for it if so."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._filled) / self._interval)
            self._filled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


def rate_limited(answer: Answer, limit: Callable[[], RateLimit | None]) -> Answer:
    """Return a function that answers requests within the limit, which is asked for at each request.

    Beyond it, GET and HEAD are answered 429, others 503: Alertmanager drops a notification that is answered 429.
    """

    def limited(request: Request) -> Response:
        rate = limit()
        if rate is None or rate.allows():
            return answer(request)
        reads = request.method in ("GET", "HEAD")
        return plain(HTTPStatus.TOO_MANY_REQUESTS if reads else HTTPStatus.SERVICE_UNAVAILABLE, ("Retry-After", "1"))

    return limited


def parse_duration(value: Any) -> float | None:
    """Return the seconds of a duration in Go's syntax (1h30m, 1.5s, 100ms, 0), or None if it is invalid."""
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str) or not re.fullmatch(rf"(?:{_PART.pattern})+", value):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
