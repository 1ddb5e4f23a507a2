import pytest

from mempressure_actuator.heartbeat import MISSED_INTERVALS, reason_to_be_autonomous


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
