from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mempressure import observation as module
from mempressure.observation import SERIES_LENGTH, Series


@given(waits=st.lists(st.floats(-30, 2000), max_size=120))
def test_a_series_is_bounded_ordered_and_no_denser_than_its_gap(waits):
    now, series = 1e9, Series()
    for wait in waits:
        now += wait
        series = series.after(now, 1.0, gap=5.0)
        times = [time for time, _ in series.samples]
        assert 1 <= len(times) <= SERIES_LENGTH
        assert all(later - earlier >= 5.0 for earlier, later in pairwise(times))
        assert times[-1] - times[0] <= module.SERIES_SECONDS
        assert -10.0 < now - times[-1] < 5.0


def test_a_slope_is_worked_out_once(monkeypatch):
    calls = []
    monkeypatch.setattr(module.trend, "slope", lambda samples: calls.append(samples) or 5.0)
    series = Series(tuple((1e9 + 10 * i, 0.0) for i in range(10)))
    assert (series.slope, series.slope, len(calls)) == (5.0, 5.0, 1)
