import os
import sys

import pytest

from mempressure.errors import MempressureError
from mempressure.measure.memory import host_memory
from mempressure.measure.memory_reading import MemoryReading
from mempressure.measure.pressure import MeasureError, PressureReading, pressure

GIB = 1 << 30
KB_OF_GIB = 1 << 20


def test_host_memory(proc):
    reading = host_memory(proc=proc.path)
    assert reading == MemoryReading(total=8 * GIB, available=4 * GIB, swap_total=2 * GIB, swap_free=1 * GIB)
    assert (reading.used, reading.usage) == (4 * GIB, 0.5)
    assert (reading.swap_used, reading.swap_usage) == (1 * GIB, 0.5)


def test_the_host_of_this_test():
    reading = host_memory()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert reading.total == pytest.approx(pages, rel=0.01)
    assert 0 < reading.available < reading.total


def test_without_mem_available_free_and_cache_count(proc):
    proc.meminfo(MemAvailable=None)
    assert host_memory(proc=proc.path).available == 3 * GIB
    proc.meminfo(MemAvailable=None, Cached=None)
    assert host_memory(proc=proc.path).available == 1 * GIB


def test_mem_free_is_only_needed_without_mem_available(proc):
    proc.meminfo(MemFree=None)
    assert host_memory(proc=proc.path).available == 4 * GIB
    proc.meminfo(MemFree=None, MemAvailable=None)
    with pytest.raises(MeasureError, match=rf"{proc.path}/meminfo has no MemFree; is {proc.path} a proc file system\?"):
        host_memory(proc=proc.path)


def test_nothing_available_is_not_unknown(proc):
    proc.meminfo(MemAvailable=0)
    assert host_memory(proc=proc.path).usage == 1.0


def test_no_more_is_available_than_there_is(proc):
    proc.meminfo(MemTotal=2 * KB_OF_GIB, SwapTotal=1, SwapFree=2)
    reading = host_memory(proc=proc.path)
    assert (reading.available, reading.used, reading.usage) == (2 * GIB, 0, 0.0)
    assert (reading.swap_used, reading.swap_usage) == (0, 0.0)


def test_without_swap(proc):
    for absent in (0, None):
        proc.meminfo(SwapTotal=absent, SwapFree=absent)
        reading = host_memory(proc=proc.path)
        assert (reading.swap_total, reading.swap_used, reading.swap_usage) == (0, 0, 0.0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MeasureError, match=rf"{tmp_path}/meminfo cannot be read: No such file.*is {tmp_path} a proc"):
        host_memory(proc=str(tmp_path))


@pytest.mark.parametrize("text", ["", "garbage", "MemTotal:\nMemAvailable: x kB\n", "MemTotal: -5 kB\n", "\x00" * 100])
def test_an_unreadable_total_is_named(proc, text):
    proc.write("meminfo", text)
    with pytest.raises(MeasureError, match="meminfo has no MemTotal"):
        host_memory(proc=proc.path)


def test_a_measure_error_is_both_ours_and_an_os_error():
    assert issubclass(MeasureError, MempressureError)
    assert issubclass(MeasureError, OSError)


def test_elsewhere_psutil_measures(monkeypatch, proc):
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert host_memory().total == psutil.virtual_memory().total
    assert host_memory(proc=proc.path).total == 8 * GIB
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MeasureError, match="needs psutil on this platform: pip install psutil"):
        host_memory()


def test_pressure(proc):
    proc.pressure(waiting=12.5, stalled=3.25)
    assert pressure(f"{proc.path}/pressure/memory") == PressureReading(12.5, 3.25)


def test_pressure_of_an_older_kernel_has_no_full(proc):
    path = proc.write("pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n")
    assert pressure(str(path)) == PressureReading(1.5, 0.0)


def test_no_pressure_file_is_no_reading(tmp_path):
    assert pressure(str(tmp_path / "memory.pressure")) is None
    assert pressure(str(tmp_path)) is None


@pytest.mark.parametrize(
    "text", ["", "\n", "garbage", "some total=", "some total=x", "some total=-5", "some avg10=0.00", "full total=5\n"]
)
def test_a_file_that_is_not_psi_is_named(proc, text):
    path = proc.write("pressure/memory", text)
    with pytest.raises(MeasureError, match=f"{path}.* (not a PSI line|no line 'some')"):
        pressure(str(path))


def test_usage_of_nothing_is_zero():
    assert MemoryReading(total=0, available=0).usage == 0.0


def test_usage_passes_one_above_a_budget():
    assert MemoryReading(total=100, available=-50).usage == 1.5
