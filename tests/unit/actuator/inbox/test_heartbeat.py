import time

import pytest

from mempressure_actuator.inbox.heartbeat import MISSED_INTERVALS, Heartbeats, reason_to_be_autonomous


@pytest.mark.parametrize(
    ("last", "now", "alerts_enabled", "reason"),
    [
        (None, 100.0, True, ""),
        (None, 129.9, True, ""),
        (None, 130.0, True, "no heartbeat since the start, 30 s ago"),
        (125.0, 130.0, True, ""),
        (125.0, 154.9, True, ""),
        (125.0, 155.0, True, "no heartbeat for 30 s"),
        (125.0, 126.0, False, "alerts are turned off"),
        (None, 100.0, False, "alerts are turned off"),
        (125.0, 500.0, False, "alerts are turned off"),
    ],
)
def test_autonomy_by_time(last, now, alerts_enabled, reason):
    given = reason_to_be_autonomous(last=last, started=100.0, now=now, interval=10.0, alerts_enabled=alerts_enabled)
    assert given == reason


def test_three_intervals_may_be_missed():
    assert MISSED_INTERVALS == 3
    options = {"last": 0.0, "started": 0.0, "interval": 0.5, "alerts_enabled": True}
    assert not reason_to_be_autonomous(**options, now=1.49)
    assert reason_to_be_autonomous(**options, now=1.5)


def test_notifications_that_cannot_be_stored_make_it_autonomous():
    options = {"last": 0.0, "started": 0.0, "now": 1.0, "interval": 5.0, "alerts_enabled": True}
    assert reason_to_be_autonomous(**options, storing=False) == "notifications cannot be stored"
    assert reason_to_be_autonomous(**options, storing=True) == ""


def test_a_restart_is_no_heartbeat():
    heartbeats = Heartbeats(10.0)
    assert heartbeats.reason_to_be_autonomous(alerts_enabled=True) == ""
    heartbeats.resume(time.time() - 29.0)
    assert heartbeats.reason_to_be_autonomous(alerts_enabled=True) == ""
    heartbeats.resume(time.time() - 31.0)
    assert heartbeats.reason_to_be_autonomous(alerts_enabled=True) == "no heartbeat for 30 s"
    heartbeats.resume(time.time() + 1e6)  # the clock was set back: nothing waits until it has caught up
    assert heartbeats.reason_to_be_autonomous(alerts_enabled=True) == ""
    heartbeats.receive()
    assert heartbeats.reason_to_be_autonomous(alerts_enabled=True) == ""
