"""When the actuator judges for itself: the decision is pure, time is passed in.

Alertmanager repeats `MemoryPressureHeartbeat` for as long as Prometheus sees fresh samples of this node. Where it
stays away, the alerts would, too.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MISSED_INTERVALS = 3
"""How many heartbeats may be missed."""


def reason_to_be_autonomous(
    *, last: float | None, started: float, now: float, interval: float, alerts_enabled: bool, storing: bool = True
) -> str:
    """Return why the actuator must evaluate the thresholds itself; empty where Prometheus does.

    Args:
        last: when the last heartbeat was received, in seconds on the clock of `now`; None before the first.
        started: when the actuator started; the first heartbeat is given as long to come as any other.
        now: the time, on a clock that is never set.
        interval: seconds between heartbeats.
        alerts_enabled: whether people let the rules alert at all.
        storing: whether what arrives can be stored; what cannot is no lease.
    """
    if not alerts_enabled:
        return "alerts are turned off"
    if not storing:
        return "notifications cannot be stored"
    patience = MISSED_INTERVALS * interval
    if last is None:
        return f"no heartbeat since the start, {patience:g} s ago" if now - started >= patience else ""
    return f"no heartbeat for {patience:g} s" if now - last >= patience else ""


@dataclass(slots=True)
class Heartbeats:
    """When heartbeats were received, before this start too."""

    interval: float
    """Seconds between them."""
    storing: Callable[[], bool] = lambda: True
    """Returns whether what arrives can be stored."""
    _last: float | None = None
    _started: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float | None:
        """Return how many seconds ago the last one was received; None before the first."""
        return None if self._last is None else max(0.0, time.monotonic() - self._last)

    def receive(self) -> None:
        """Note that one was received now."""
        self._last = time.monotonic()

    def resume(self, received: float) -> None:
        """Note when one was received before this start, in Unix seconds: a restart is no heartbeat."""
        self._last = time.monotonic() - max(0.0, time.time() - received)

    def reason_to_be_autonomous(self, *, alerts_enabled: bool) -> str:
        """Return what `reason_to_be_autonomous` says of them now."""
        return reason_to_be_autonomous(
            last=self._last,
            started=self._started,
            now=time.monotonic(),
            interval=self.interval,
            alerts_enabled=alerts_enabled,
            storing=self.storing(),
        )
