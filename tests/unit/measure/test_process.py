import mmap
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mempressure.measure.process import (
    PAGE_BYTES,
    ProcessMemory,
    anonymous_bytes,
    private_bytes,
    process_memory,
    start_ticks,
)

READERS = [process_memory, private_bytes, anonymous_bytes, start_ticks]
NAMES = ["python", "a b", ") R 1 2 3", "((", "", ") Z 0", "x" * 15, "é) (", "a)b)c"]


@pytest.fixture
def zombie():
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    yield child.pid
    child.wait()


def test_a_process(proc):
    proc.process(7, start_ticks=4711, pss_kb=3000, private_kb=2001, resident_pages=500, shared_pages=120)
    assert process_memory(7, proc=proc.path) == ProcessMemory(proportional=3000 << 10, private=2001 << 10)
    assert private_bytes(7, proc=proc.path) == 2001 << 10
    assert anonymous_bytes(7, proc=proc.path) == 380 * PAGE_BYTES
    assert start_ticks(7, proc=proc.path) == 4711


def test_swapped_pages_are_given_back_too(proc):
    proc.process(7, pss_kb=3000, private_kb=2000, swap_pss_kb=500)
    assert process_memory(7, proc=proc.path) == ProcessMemory(proportional=3500 << 10, private=2500 << 10)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_with_spaces_and_brackets_shifts_nothing(proc, name):
    proc.process(7, name=name, start_ticks=4711)
    assert start_ticks(7, proc=proc.path) == 4711


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example writes the same file anew
@given(name=st.text(st.characters(exclude_categories=["Cs"]), max_size=15), ticks=st.integers(0, 2**63))
def test_any_name(proc, name, ticks):
    proc.process(7, name=name, start_ticks=ticks)
    assert start_ticks(7, proc=proc.path) == ticks


def test_this_process_in_memory():
    memory = process_memory()
    assert process_memory(os.getpid()).proportional == pytest.approx(memory.proportional, rel=0.2)
    assert 1 << 20 < memory.private <= memory.proportional
    assert private_bytes() == pytest.approx(memory.private, rel=0.2)


def test_this_process_grows_by_what_it_touches():
    size = 32 << 20
    private, anonymous = private_bytes(), anonymous_bytes()
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        for page in range(0, size, PAGE_BYTES):
            area[page] = 1
        assert private_bytes() - private == pytest.approx(size, rel=0.1)
        assert anonymous_bytes() - anonymous == pytest.approx(size, rel=0.1)
    assert private_bytes() - private < size / 2


def test_start_ticks_identify_a_process():
    assert start_ticks() == start_ticks(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert start_ticks(child.pid) >= start_ticks()
        child.communicate(b"\n")


@pytest.mark.parametrize("read", READERS)
def test_a_gone_process_is_named(proc, read):
    with pytest.raises(ProcessLookupError, match="process 4194399"):
        read(4194399, proc=proc.path)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(ProcessLookupError, match=f"process {child.pid}"):
        read(child.pid)


@pytest.mark.parametrize("read", [process_memory, private_bytes, start_ticks])
def test_a_zombie_is_gone(zombie, read):
    with pytest.raises(ProcessLookupError, match=f"process {zombie} "):
        read(zombie)


def test_a_zombie_holds_nothing(zombie):
    assert anonymous_bytes(zombie) == 0


@pytest.mark.parametrize("state", ["Z", "X"])
def test_a_process_that_has_ended_is_gone(proc, state):
    proc.process(7, state=state)
    with pytest.raises(ProcessLookupError, match="process 7 has ended"):
        start_ticks(7, proc=proc.path)


@pytest.mark.parametrize("state", ["R", "S", "D", "T", "t", "I"])
def test_a_process_that_waits_is_not(proc, state):
    proc.process(7, state=state)
    assert start_ticks(7, proc=proc.path) == 1000


def test_an_empty_rollup_is_an_ending_process(proc):
    proc.process(7)
    proc.write("7/smaps_rollup", "")
    with pytest.raises(ProcessLookupError, match="process 7 holds no memory: it is ending"):
        process_memory(7, proc=proc.path)


def test_a_kernel_without_rollup_is_named(proc):
    proc.process(7)
    os.unlink(f"{proc.path}/7/smaps_rollup")
    with pytest.raises(ProcessLookupError, match=r"7/smaps_rollup: process 7 is gone, or .* older than Linux 4.14"):
        process_memory(7, proc=proc.path)
