"""A limit on requests: a bucket of tokens that fills up over time."""

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
    """Lets `burst` requests pass at once, and one more an interval.

    Args:
        interval: seconds.
        burst: how many tokens there are at most.
        clock: seconds that never go back.
    """

    def __init__(self, *, interval: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = float(burst)
        self._filled = clock()

    def allows(self) -> bool:
        """Return whether a request may pass, and count it where it may."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._filled) / self._interval)
            self._filled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


def rate_limited(answer: Answer, limit: Callable[[], RateLimit | None]) -> Answer:
    """Return what answers requests while the limit of the moment lets them pass.

    The others get 429 where they ask, and 503 where they tell: a notification that is answered 429 Alertmanager drops.
    """

    def limited(request: Request) -> Response:
        rate = limit()
        if rate is None or rate.allows():
            return answer(request)
        asks = request.method in ("GET", "HEAD")
        return plain(HTTPStatus.TOO_MANY_REQUESTS if asks else HTTPStatus.SERVICE_UNAVAILABLE, ("Retry-After", "1"))

    return limited


def parse_duration(value: Any) -> float | None:
    """Return the seconds of a duration as Go writes them (1h30m, 1.5s, 100ms, 0), or None for what is none."""
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str) or not re.fullmatch(rf"(?:{_PART.pattern})+", value):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
