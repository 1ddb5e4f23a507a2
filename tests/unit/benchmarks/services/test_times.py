import pytest

from benchmarks.services.load import Answers
from benchmarks.services.times import Times, row


def answers(*milliseconds):
    found = Answers()
    for each in milliseconds:
        found.take("GET /", each / 1000, "")
    return found


def test_times_are_compared_by_their_95th_percentile():
    times = Times("wagtail", answers(*[10] * 94, *[100] * 6), answers(*[5] * 94, *[120] * 6))
    assert times.ratio == pytest.approx(1.2)
    assert row(times) == ["wagtail", "100", "100", "120", "1.20"]
