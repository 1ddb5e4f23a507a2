from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.measure import trend
from mempressure.measure.trend import (
    MIN_SAMPLES,
    NOTABLE_SECONDS,
    NOTABLE_SHARE,
    SERIES_LENGTH,
    SERIES_SECONDS,
    Series,
    direction,
    slope,
)

MIB = 1 << 20

times = st.lists(st.integers(0, 10**6), min_size=MIN_SAMPLES, max_size=20, unique=True)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([], None),
        ([(0, 1)], None),
        ([(0, 1), (1, 2)], None),
        ([(5, 1), (5, 2), (5, 3)], None),
        ([(0, 10), (1, 12), (2, 14)], 2),
        ([(2, 14), (0, 10), (1, 12)], 2),
        ([(0, 7), (10, 7), (20, 7)], 0),
        ([(0, 30), (10, 20), (20, 10)], -1),
        # Two at one time make no pair; the pairs left are 10/10, 12/10.
        ([(0, 0), (10, 10), (10, 12)], 1.1),
        # The median of the six pairs' slopes 1, 1, 1, 97/1, 98/2, 99/3.
        ([(0, 0), (1, 1), (2, 2), (3, 99)], (1 + 33) / 2),
        ([(0, 0), (1, 1), (2, 2), (3, 99), (4, 4), (5, 5), (6, 6)], 1),
    ],
)
def test_slope(samples, expected):
    assert slope(samples) == (expected if expected is None else pytest.approx(expected))


@given(times, st.integers(0, 2**40))
def test_constant_memory_has_no_slope(when, value):
    assert slope([(time, value) for time in when]) == 0


@given(times, st.integers(-(10**6), 10**6), st.integers(0, 2**40))
def test_a_line_has_its_own_slope(when, rate, start):
    assert slope([(time, start + rate * time) for time in when]) == pytest.approx(rate)


@given(times.map(sorted), st.data())
def test_what_only_grows_has_no_negative_slope_and_the_mirror_image_the_opposite(when, data):
    values = sorted(data.draw(st.lists(st.integers(0, 2**40), min_size=len(when), max_size=len(when))))
    samples = list(zip(when, values, strict=True))
    growing = slope(samples)
    assert growing >= 0
    assert slope([(time, -value) for time, value in samples]) == pytest.approx(-growing)


@given(st.sets(st.integers(0, 19), max_size=5), st.floats(-1e15, 1e15), st.permutations(range(20)))
def test_a_quarter_of_outliers_changes_nothing(outliers, wrong, order):
    samples = [(10 * n, wrong if n in outliers else 5 * MIB * n) for n in order]
    assert slope(samples) == pytest.approx(MIB / 2)


@pytest.mark.parametrize(
    ("slope_", "total", "expected"),
    [
        (0, 1000, "stable"),
        (None, 1000, "stable"),
        (5, 0, "stable"),
        (1.0, NOTABLE_SECONDS / NOTABLE_SHARE, "increasing"),
        (0.999, NOTABLE_SECONDS / NOTABLE_SHARE, "stable"),
        (-0.999, NOTABLE_SECONDS / NOTABLE_SHARE, "stable"),
        (-1.0, NOTABLE_SECONDS / NOTABLE_SHARE, "decreasing"),
        (MIB, 16 << 30, "increasing"),
        (MIB / 10, 16 << 30, "stable"),
        (MIB / 10, 1 << 30, "increasing"),
    ],
)
def test_direction(slope_, total, expected):
    assert direction(slope_, total_bytes=total) == expected


@given(waits=st.lists(st.floats(-30, 2000), max_size=120))
def test_a_series_is_bounded_ordered_and_no_denser_than_its_gap(waits):
    now, series = 1e9, Series()
    for wait in waits:
        now += wait
        series = series.after(now, 1.0, gap=5.0)
        times = [time for time, _ in series.samples]
        assert 1 <= len(times) <= SERIES_LENGTH
        assert all(later - earlier >= 5.0 for earlier, later in pairwise(times))
        assert times[-1] - times[0] <= SERIES_SECONDS
        assert -10.0 < now - times[-1] < 5.0


def test_a_series_has_a_slope_once_it_reaches_back_far_enough():
    series, slopes = Series(), []
    for time in (0, 10, 20, 30):
        series = series.after(1e9 + time, 5.0 * time, gap=10.0)
        slopes.append(series.slope)
    assert slopes == [None, None, None, pytest.approx(5.0)]


def test_a_slope_is_computed_once(monkeypatch):
    calls = []
    monkeypatch.setattr(trend, "slope", lambda samples: calls.append(samples) or 5.0)
    series = Series(tuple((1e9 + 10 * i, 0.0) for i in range(10)))
    assert (series.slope, series.slope, len(calls)) == (5.0, 5.0, 1)


def test_a_clock_that_was_set_back_starts_a_new_series():
    series = Series(((1000.0, 1.0), (1010.0, 2.0)))
    assert series.after(1005.0, 3.0, gap=10.0) is series
    assert series.after(1000.0, 3.0, gap=10.0).samples == ((1000.0, 3.0),)
