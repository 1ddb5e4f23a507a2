import os
import subprocess
import sys

import pytest

from benchmarks.services.memory import Sample, Sampler, at_rest, peak, replaced, sample, tree
from mempressure.measure.process import process_memory
from tests.support.waiting import until

PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], stdin=sys.stdin)"


def samples(*held, pids=()):
    pids = pids or [{1, 2}] * len(held)
    return [Sample(float(when), size, frozenset(of)) for when, (size, of) in enumerate(zip(held, pids, strict=True))]


@pytest.fixture
def parent():
    """A process with a child, and a way to end both."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE) as process:
        until(lambda: len(list(tree(process.pid))) == 2, "its child")
        yield process
        process.stdin.close()


def test_a_tree_is_a_process_and_all_below_it(parent):
    own = list(tree(os.getpid()))
    assert own[0] == os.getpid()
    assert set(tree(parent.pid)) < set(own)


def test_a_sample_adds_up_the_proportional_memory_of_all(parent):
    taken = sample(parent.pid)
    assert taken.pids == set(tree(parent.pid))
    expected = sum(process_memory(pid).proportional for pid in taken.pids)
    assert taken.proportional == pytest.approx(expected, rel=0.2)


def test_a_process_that_is_gone_counts_for_nothing(parent):
    parent.stdin.close()
    parent.wait()
    assert sample(parent.pid)[1:] == (0, frozenset())


def test_a_sampler_takes_samples_until_it_is_stopped(parent):
    sampler = Sampler(parent.pid, seconds=0.01)
    until(lambda: len(sampler.samples) >= 3, "three samples")
    sampler.stop()
    count = len(sampler.samples)
    assert all(taken.proportional > 0 for taken in sampler.samples)
    assert len(sampler.samples) == count


def test_the_peak_is_held_in_two_samples_in_a_row():
    taken = samples(900, 100, 300, 290, 200, 800, 100)
    assert peak(taken, begin=1, end=6) == 290
    assert peak(taken, begin=1, end=2) == 100


def test_rest_is_the_median_of_the_moments_asked_for():
    taken = samples(900, 100, 300, 200, 250, 800)
    assert at_rest(taken, begin=2, end=4) == 250


def test_replaced_are_the_processes_that_came_after_the_first_moment():
    taken = samples(1, 1, 1, 1, pids=[{1, 2, 3}, {1, 2, 3}, {1, 3, 4}, {1, 4, 5}])
    assert replaced(taken, begin=0, end=3) == 2
    assert replaced(taken, begin=0, end=1) == 0
    assert replaced(taken, begin=2, end=3) == 1
