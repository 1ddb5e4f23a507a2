"""Slots: who has one, as the kernel knows it, and the record that others read."""

import os
import signal
import subprocess
import sys

import pytest

from mempressure.protocol import slots
from tests.support.forking import in_child

TAKE = """
import sys
from mempressure.protocol import slots
record = slots.take(sys.argv[1], int(sys.argv[2]))
record.calls = 7
record.last_used = -1
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path)


@pytest.fixture
def take(directory):
    """Have another process take a slot until it is killed, or its standard input is closed."""
    processes = []

    def take(number):
        process = subprocess.Popen(
            [sys.executable, "-c", TAKE, directory, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "taken\n"
        return process

    yield take
    for process in processes:
        with process:
            process.kill()


def test_a_slot_that_nothing_has_taken(directory):
    assert slots.read(directory, 0) is None
    assert slots.holder(directory, 0) == 0
    assert slots.holders(directory) == {}


def test_a_record_is_read_by_others_while_its_process_lives_and_after(take, directory):
    process = take(0)
    record = slots.read(directory, 0)
    assert (record.pid, record.calls, record.last_used, record.call) == (process.pid, 7, -1, 0)
    assert record.ticks == slots.start_ticks(process.pid) > 0
    assert slots.holder(directory, 0) == process.pid
    process.kill()
    process.wait()
    assert slots.holder(directory, 0) == 0
    assert record.pid == process.pid


def test_a_slot_has_one_process_and_begins_anew_with_the_next(take, directory):
    process = take(0)
    assert slots.take(directory, 0) is None
    process.kill()
    process.wait()
    next_one = take(0)
    assert slots.read(directory, 0).pid == next_one.pid


def test_what_one_writes_the_other_reads_at_once(take, directory):
    take(0)
    one, other = slots.read(directory, 0), slots.read(directory, 0)
    one.private, one.abandoned = 1 << 40, (os.getpid() << 32) | 1
    assert (other.private, other.abandoned) == (1 << 40, (os.getpid() << 32) | 1)
    one.clear()
    assert other.pid == other.private == 0


def test_a_forked_child_neither_has_the_slot_nor_frees_it(directory):
    def parent():
        record = slots.take(directory, 0)  # which keeps the lock
        assert record.pid == os.getpid()

        def child():
            assert slots.holder(directory, 0) == os.getppid()

        in_child(child)
        child_reads = os.fork()
        if child_reads == 0:  # closes all that it has, as its end does
            os.closerange(3, 64)
            os._exit(0)
        os.waitpid(child_reads, 0)

        def another():
            assert slots.take(directory, 0) is None

        in_child(another)

    in_child(parent)


def test_holders_are_found_beyond_a_slot_that_is_free(take, directory):
    first, second = take(0), take(1)
    assert slots.holders(directory) == {0: first.pid, 1: second.pid}
    first.kill()
    first.wait()
    assert slots.holders(directory) == {1: second.pid}


def test_a_file_that_is_not_complete_has_no_record(directory):
    open(slots.slot_path(directory, 0), "w").close()
    assert slots.read(directory, 0) is None
    assert slots.holder(directory, 0) == 0


def test_a_link_is_not_followed(directory, tmp_path):
    os.symlink(tmp_path / "elsewhere", slots.slot_path(directory, 0))
    for action in (slots.take, slots.read, slots.holder):
        with pytest.raises(OSError, match="symbolic links"):
            action(directory, 0)


def test_start_ticks_of_no_process_is_0(take):
    process = take(3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert slots.start_ticks(process.pid) == 0
