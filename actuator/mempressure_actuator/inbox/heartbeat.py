"""The heartbeat of the alerting chain, and when its absence makes the actuator evaluate the thresholds itself.

Alertmanager repeats `MemoryPressureHeartbeat` as long as Prometheus has fresh samples of this node. If it is missing,
alerts would be missing, too.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MISSED_INTERVALS = 3
"""Intervals without a heartbeat after which the actuator is autonomous."""


def reason_to_be_autonomous(
    *, last: float | None, started: float, now: float, interval: float, alerts_enabled: bool, storing: bool = True
) -> str:
    """Return why the actuator must evaluate the thresholds itself; empty while Prometheus does. Time is passed in.

    Args:
        last: when the last heartbeat was received, in seconds on the clock of `now`; None before the first.
        started: when the actuator started; the first heartbeat has as long to arrive as any other.
        now: the time, on a monotonic clock.
        interval: seconds between heartbeats.
        alerts_enabled: whether alerts are turned on.
        storing: whether notifications can be stored; without that there are no new leases.
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
    """When heartbeats were received, including before this start."""

    interval: float
    """Seconds between them."""
    storing: Callable[[], bool] = lambda: True
    """Returns whether notifications can be stored."""
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
        """Set when the last one was received before this start (Unix seconds): a restart does not count as one."""
        self._last = time.monotonic() - max(0.0, time.time() - received)

    def reason_to_be_autonomous(self, *, alerts_enabled: bool) -> str:
        """Return `reason_to_be_autonomous` for now."""
        return reason_to_be_autonomous(
            last=self._last,
            started=self._started,
            now=time.monotonic(),
            interval=self.interval,
            alerts_enabled=alerts_enabled,
            storing=self.storing(),
        )
