"""Loading again before demand: which hours count, and whether there is room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.decide.admission import ScopeMemory
from mempressure.residents.warming import HOURS, UsedHours, is_to_be_warmed, wants_warming

HOUR = 3600.0
NOON = 500_000 * HOUR


def hours(pattern):
    """Return the hours of a pattern, the present one last: "x" used, "." not."""
    found = UsedHours()
    for place, each in enumerate(pattern):
        found = found.noted(NOON + (place - len(pattern) + 1) * HOUR, used=each == "x")
    return found


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", False),
        ("x", True),
        (".", False),
        ("x.", False),
        ("xx.", True),
        (".x.x", False),
        (".xxx", True),
        ("x" * 13 + "." * 11, True),
        ("x" * 12 + "." * 12, False),
        ("x" * 30 + "." * 11, True),
        ("x" * 30 + "." * 12, False),
        ("." * 30 + "x" * 13, True),
        ("x......x", False),
    ],
)
def test_more_than_half_of_the_last_hours(pattern, expected):
    assert hours(pattern).in_most(NOON) is expected


def test_hours_in_which_nothing_looked_count_as_unused():
    found = UsedHours().noted(NOON, used=True)
    assert found.in_most(NOON)
    assert not found.in_most(NOON + HOUR)
    assert not found.noted(NOON + 100 * HOUR, used=False).in_most(NOON + 100 * HOUR)


def test_several_looks_within_an_hour_are_one_hour():
    found = UsedHours().noted(NOON, used=True).noted(NOON + 1, used=False).noted(NOON + 2, used=True)
    assert (found.used, found.in_most(NOON + 3)) == (1, True)


def test_a_clock_that_was_set_back_forgets_nothing():
    found = hours("xx").noted(NOON - 50 * HOUR, used=False)
    assert found.in_most(NOON - 50 * HOUR)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_it_is_the_count_over_the_last_day(used):
    found = hours("".join("x" if each else "." for each in used))
    last = used[-HOURS:]
    assert found.in_most(NOON) is (2 * sum(last) > len(last))
    assert found.used < 1 << HOURS


ROOMY, FULL = ScopeMemory("the host", 1000, 100), ScopeMemory("app 'shop'", 1000, 700)


@pytest.mark.parametrize(
    ("scopes", "size", "expected"),
    [
        ([ROOMY], 100, True),
        ([ROOMY, FULL], 49, True),
        ([ROOMY, FULL], 50, False),  # at 0.75 it would be pressure again
        ([ScopeMemory("the host", 1000, 750)], 0, False),
        ([ScopeMemory("the host", 1000, 749)], 0, True),
        ([], 0, False),
    ],
)
def test_only_where_every_scope_stays_below_the_limit(scopes, size, expected):
    found = is_to_be_warmed(hours("x"), now=NOON, unloaded_at=NOON - 100, size=size, scopes=scopes, limit=0.75)
    assert found is expected


@pytest.mark.parametrize(
    ("unloaded_at", "expected"), [(None, False), (NOON - 59, False), (NOON - 60, True), (NOON + 500, True)]
)
def test_only_what_was_let_go_and_not_a_moment_ago(unloaded_at, expected):
    assert wants_warming(hours("x"), now=NOON, unloaded_at=unloaded_at) is expected
