import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.decide.quarantine import QUARANTINE_SECONDS, current, in_force, judged, reason
from mempressure.state.records import PackageState, WorkerState

MIB = 1 << 20
NOW = 1_000_000.0
KEY = ("shop", "pandas", "stop")


def held(*, pids=(1,), loads=1.0, mib=100.0):
    package = PackageState(
        name="pandas", mechanism="stop", source="process", timeout=60.0, loaded=1.0, loads=loads, memory_bytes=mib * MIB
    )
    return [
        (WorkerState(app="shop", pid=pid, start_ticks=pid, pid_namespace="ns", started=0.0), package) for pid in pids
    ]


def after(share, *, expected=100 * MIB, before=None):
    return judged(before or {}, KEY, held(), expected_bytes=expected, reclaimed_bytes=share * expected, now=NOW)


@pytest.mark.parametrize(("share", "is_quarantined"), [(0.0, True), (0.199, True), (0.2, False), (1.5, False)])
def test_under_a_fifth_of_the_prediction_is_quarantined(share, is_quarantined):
    assert (in_force(after(share), KEY, held(), now=NOW) is not None) is is_quarantined


@pytest.mark.parametrize("expected", [0, MIB - 1])
def test_a_prediction_too_small_to_judge_changes_nothing(expected):
    assert after(0.0, expected=expected) == {}
    before = after(0.0)
    assert after(0.0, expected=expected, before=before) == before


def test_a_good_action_ends_the_quarantine_and_touches_no_other():
    other = {("till", "pandas", "stop"): after(0.0)[KEY]}
    assert after(1.0, before=after(0.0) | other) == other


@pytest.mark.parametrize(
    ("key", "holds"),
    [
        (KEY, True),
        (("till", "pandas", "stop"), False),
        (("shop", "numpy", "stop"), False),
        (("shop", "pandas", "x"), False),
    ],
)
def test_it_holds_for_that_app_package_and_mechanism_only(key, holds):
    assert (in_force(after(0.0), key, held(), now=NOW) is not None) is holds


@pytest.mark.parametrize(
    ("elapsed", "holds"), [(0, True), (QUARANTINE_SECONDS - 1, True), (QUARANTINE_SECONDS, False), (-1, False)]
)
def test_it_ends_after_half_an_hour(elapsed, holds):
    assert (in_force(after(0.0), KEY, held(loads=2.0), now=NOW + elapsed) is not None) is holds
    assert (KEY in current(after(0.0), now=NOW + elapsed)) is holds


@pytest.mark.parametrize(
    ("again", "holds"),
    [
        ({"loads": 1.0, "mib": 100.0}, True),
        ({"loads": 1.0, "mib": 300.0}, True),  # the same process
        ({"loads": 2.0, "mib": 100.0}, True),  # the same numbers
        ({"loads": 2.0, "mib": 124.0}, True),
        ({"loads": 2.0, "mib": 126.0}, False),
        ({"loads": 2.0, "mib": 74.0}, False),
        ({"pids": (2,), "mib": 200.0}, False),
        ({"pids": (1, 2), "mib": 200.0}, True),  # one of them is the process that disappointed
    ],
)
def test_it_ends_once_loaded_again_in_fresh_processes_with_other_numbers(again, holds):
    assert (in_force(after(0.0), KEY, held(**again), now=NOW + 1) is not None) is holds


def test_the_reason_names_what_was_measured_and_how_long_it_lasts():
    text = reason(after(0.031)[KEY], "stop", now=NOW + 60)
    assert text == "is quarantined for another 1740 s: stop gave back 3.1 MiB of the 100.0 MiB expected"


@given(st.floats(0, 2.0**62), st.floats(0, 2.0**62), st.floats(0, 2.0**40))
def test_any_numbers_are_judged_alike(expected, reclaimed, mib):
    judgement = judged({}, KEY, held(mib=mib), expected_bytes=expected, reclaimed_bytes=reclaimed, now=NOW)
    assert (KEY in judgement) == (expected >= MIB and reclaimed < 0.2 * expected)
    assert KEY not in judgement or in_force(judgement, KEY, held(mib=mib), now=NOW)
