import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.decide.backoff import DECAY_SECONDS, HIGHEST_LEVEL, decayed, factor, is_refault, raised
from mempressure.isolation.package import IsolatedPackage
from mempressure.worker.isolated_states import isolated_states

levels = st.floats(0, HIGHEST_LEVEL)
seconds = st.floats(-1e9, 1e9)


@pytest.mark.parametrize(("gap", "expected"), [(0.0, True), (59.9, True), (60.0, False), (-5.0, True)])
def test_a_load_within_a_minute_of_the_unloading_is_a_refault(gap, expected):
    assert is_refault(1000.0, 1000.0 + gap) is expected


@pytest.mark.parametrize(
    ("gaps", "times"),
    [
        ([], 1),
        ([0], 2),
        ([0, 0], 4),
        ([0, 0, 0, 0, 0], 32),
        ([0] * 50, 32),
        ([0, DECAY_SECONDS], 2),
        ([0, 0, DECAY_SECONDS], 4),
        ([0, 2 * DECAY_SECONDS], 2),
    ],
)
def test_each_refault_doubles_and_ten_minutes_halve(gaps, times):
    level = 0.0
    for gap in gaps:
        level = raised(level, gap)
    assert factor(level) == times


@given(levels, seconds)
def test_levels_and_factors_are_bounded(level, elapsed):
    assert 0 <= decayed(level, elapsed) <= level
    assert decayed(level, elapsed) < raised(level, elapsed) <= HIGHEST_LEVEL or level == HIGHEST_LEVEL
    assert 1 <= factor(level) <= 32


@given(levels, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_level_only_falls_and_is_gone_in_the_end(level, sooner, more):
    assert decayed(level, sooner + more) <= decayed(level, sooner)
    assert decayed(level, HIGHEST_LEVEL * DECAY_SECONDS) == 0


@given(st.floats(-1e300, 1e300))
def test_whatever_is_published_the_factor_is_bounded(level):
    assert 1 <= factor(level) <= 32


def test_an_isolated_package_publishes_its_refaults(own_processes):
    now = [1000.0]
    package = IsolatedPackage("json", processes=1, clock=lambda: now[0])
    seen = []
    try:
        for pause in (0, 4, 30, 61):
            now[0] += pause
            package.call("json", "dumps", (1,))
            (state,) = isolated_states({"json": package}, {})
            seen.append((state.refaults, state.refault_level, state.last_refault, state.refault_delay))
            package.unload()
    finally:
        package.close()
    second = (2, pytest.approx(2 - 30 / DECAY_SECONDS), 1034.0, 30.0)
    assert seen == [(0, 0, -1, 0), (1, 1, 1004.0, 4.0), second, second]
