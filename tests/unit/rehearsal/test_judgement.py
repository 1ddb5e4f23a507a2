import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.rehearsal.judgement import LEAST_BYTES, Measurements, judge

MIB = 1 << 20
GOOD = ((50 * MIB, 0.5), (60 * MIB, 0.3), (40 * MIB, 0.4))


def measurements(**options):
    return Measurements(**{"mechanism": "stop", "cycles": GOOD, "levels": (100 * MIB,) * 4, "equal": True, **options})


def test_medians_are_told():
    result = judge(measurements())
    assert (result.works, result.reason, result.mechanism) == (True, "", "stop")
    assert (result.reclaimed_bytes, result.reload_seconds, result.cycles, result.equal) == (50 * MIB, 0.4, 3, True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"refused": "cannot be pickled"}, "cannot be pickled"),
        ({"cycles": ()}, "no cycle was completed"),
        ({"equal": False}, "differs from the first"),
        ({"equal": None}, ""),
        ({"cycles": ((0, 1.0),) * 3}, "gives nothing back"),
        ({"cycles": ((-5 * MIB, 1.0),) * 3}, "gives nothing back"),
        ({"cycles": ((LEAST_BYTES - 1, 1.0),) * 3}, "gives nothing back"),
        ({"cycles": ((LEAST_BYTES, 1.0),) * 3}, ""),
        # The first use warms caches up; afterwards 2 % are flat.
        ({"levels": (50 * MIB, 100 * MIB, 101 * MIB, 102 * MIB)}, ""),
        ({"levels": (50 * MIB, 100 * MIB, 101 * MIB, 102 * MIB + 1)}, "grew by 1.0 MiB a cycle"),
        ({"levels": (45 * MIB, 44 * MIB, 46 * MIB, 44 * MIB, 46 * MIB, 46 * MIB)}, ""),  # swings
        ({"levels": (45 * MIB, 44 * MIB, 45 * MIB, 44 * MIB, 47 * MIB, 48 * MIB)}, "grew by 1.0 MiB a cycle"),
        ({"levels": (8 * MIB, 8 * MIB, 10 * MIB)}, ""),
        ({"levels": (8 * MIB, 8 * MIB, 10 * MIB + 1)}, "grew by 2.0 MiB a cycle"),
        ({"levels": (100 * MIB, 90 * MIB, 80 * MIB)}, ""),
        # As measured of sympy: one arena of 1 MiB more, kept from the middle on.
        ({"levels": tuple(round(size * MIB) for size in (46.2, 47.5, 47.7, 48.6, 48.6))}, ""),
        # One level that is off, early or late, is no growth; what leaks is higher at each.
        ({"levels": tuple(size * MIB for size in (46, 48, 48, 48, 48, 51))}, ""),
        ({"levels": tuple(size * MIB for size in (46, 45, 48, 48, 48, 48))}, ""),
        ({"levels": tuple(size * MIB for size in (46, 48, 49, 50, 51, 52))}, "grew by 1.0 MiB a cycle"),
        ({"levels": (100 * MIB, 200 * MIB)}, ""),
        ({"levels": ()}, ""),
        ({"refused": "x" * 600}, "x" * 500),
    ],
)
def test_what_works_and_why_not(options, reason):
    result = judge(measurements(**options))
    assert result.works is (not reason)
    assert reason in result.reason
    assert len(result.reason) <= 500


sizes = st.integers(-(2**40), 2**40)


@given(
    st.builds(
        Measurements,
        mechanism=st.just("stop"),
        cycles=st.lists(st.tuples(sizes, st.floats(0, 1e6)), max_size=6).map(tuple),
        levels=st.lists(st.integers(0, 2**40), max_size=6).map(tuple),
        equal=st.none() | st.booleans(),
        refused=st.text(max_size=3),
    )
)
def test_nothing_works_that_was_refused_differed_or_gave_nothing_back(measured):
    result = judge(measured)
    assert result.works == (not result.reason)
    assert result.reclaimed_bytes >= 0
    if result.works:
        assert measured.cycles
        assert not measured.refused
        assert measured.equal is not False
        assert result.reclaimed_bytes >= LEAST_BYTES
