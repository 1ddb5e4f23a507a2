import pytest

from mempressure.measure.growth import ProcessGrowth
from mempressure.measure.process import ProcessMemory
from mempressure.measure.reading import UNKNOWN

MIB = 1 << 20


@pytest.fixture
def growth():
    return ProcessGrowth()


def of(size):
    return ProcessMemory(proportional=2 * size, private=size)


def lived(growth, sizes, *, pid=7, start=1e9):
    for tick, size in enumerate(sizes):
        growth.add(start + 10 * tick, {"pandas": {pid: of(size)}})
    return growth.rates()


def test_a_process_grows_by_its_slope(growth):
    assert lived(growth, [50 * MIB + tick * MIB for tick in range(10)]) == {"pandas": pytest.approx(MIB / 10)}


def test_one_large_call_is_no_growth(growth):
    assert lived(growth, [50 * MIB] * 6 + [500 * MIB] + [50 * MIB] * 3) == {"pandas": 0}


def test_a_process_that_shrinks_has_growth_0(growth):
    assert lived(growth, [50 * MIB - tick * MIB for tick in range(10)]) == {"pandas": 0}


def test_growth_is_unknown_in_the_first_half_minute(growth):
    assert lived(growth, [MIB, 2 * MIB, 3 * MIB]) == {"pandas": UNKNOWN}


def test_a_new_process_of_a_package_starts_a_new_series(growth):
    lived(growth, [tick * MIB for tick in range(10)])
    assert lived(growth, [MIB], pid=8, start=1e9 + 100) == {"pandas": UNKNOWN}


def test_the_processes_of_a_package_grow_together_once_all_are_known(growth):
    for tick in range(10):
        processes = {7: of(50 * MIB + tick * MIB), 8: of(50 * MIB - tick * MIB), 9: of(2 * tick * MIB)}
        growth.add(1e9 + 10 * tick, {"pandas": processes})
    assert growth.rates() == {"pandas": pytest.approx(3 * MIB / 10)}
    growth.add(1e9 + 100, {"pandas": processes | {10: of(MIB)}})
    assert growth.rates() == {"pandas": UNKNOWN}


def test_a_process_that_is_gone_is_forgotten(growth):
    lived(growth, [MIB])
    growth.add(1e9 + 10, {})
    assert growth.rates() == {}
