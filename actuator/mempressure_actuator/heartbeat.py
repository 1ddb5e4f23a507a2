"""When the actuator judges for itself: pure, time is passed in.

Alertmanager repeats `MemoryPressureHeartbeat` for as long as Prometheus sees fresh samples of this node. Where it
stays away, the alerts would, too.
"""

MISSED_INTERVALS = 3
"""How many heartbeats may be missed."""


def reason_to_be_autonomous(
    *, last: float | None, started: float, now: float, interval: float, alerts_enabled: bool
) -> str:
    """Return why the actuator must evaluate the thresholds itself; empty where Prometheus does.

    Args:
        last: when the last heartbeat was received, in seconds on the clock of `now`; None before the first.
        started: when the actuator started; the first heartbeat is given as long to come as any other.
        now: the time, on a clock that is never set.
        interval: seconds between heartbeats.
        alerts_enabled: whether people let the rules alert at all.
    """
    if not alerts_enabled:
        return "alerts are turned off"
    patience = MISSED_INTERVALS * interval
    if last is None:
        return f"no heartbeat since the start, {patience:g} s ago" if now - started >= patience else ""
    return f"no heartbeat for {patience:g} s" if now - last >= patience else ""
