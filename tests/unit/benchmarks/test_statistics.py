import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.statistics import drift, quantile, summary, tenths

samples = st.lists(st.floats(min_value=0.001, max_value=1e6), min_size=1)


@given(samples)
def test_a_summary_is_in_order_and_within_its_samples(values):
    figures = summary(values)
    assert figures["count"] == len(values)
    assert figures["min"] <= figures["p50"] <= figures["p90"] <= figures["max"]
    assert figures["max"] == round(max(values), 4)


@pytest.mark.parametrize(("share", "expected"), [(0, 1), (0.5, 2.5), (1, 4)])
def test_quantiles_lie_between_neighbours(share, expected):
    assert quantile([1, 2, 3, 4], share) == expected


@given(samples)
def test_the_tenths_are_the_ends_and_of_one_length(values):
    first, last = tenths(values)
    assert len(first) == len(last) == max(1, len(values) // 10)
    assert (first, last) == (values[: len(first)], values[-len(last) :])


def test_drift_compares_the_ends_and_not_what_lies_between():
    assert drift([100] * 10 + [500] * 80 + [102] * 10) == pytest.approx(0.02)
    assert drift([100] * 50 + [80] * 50) == pytest.approx(-0.2)


def test_one_outlier_among_the_last_is_no_drift():
    assert drift([100.0] * 99 + [1000.0]) == 0
