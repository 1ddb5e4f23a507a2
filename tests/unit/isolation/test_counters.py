import pytest

from mempressure.decide.backoff import REFAULT_SECONDS
from mempressure.errors import ProcessStartError, ProcessStartTimeoutError
from mempressure.isolation.counters import Counters


@pytest.fixture
def counters():
    counters = Counters()
    counters.reset_counters()
    return counters


@pytest.mark.parametrize(("after", "refaults"), [(REFAULT_SECONDS - 1, 1), (REFAULT_SECONDS, 0), (-5.0, 1)])
def test_a_start_soon_after_an_unload_is_a_refault(counters, after, refaults):
    counters.unloaded_at = 1000.0
    counters.count_start(now=1000.0 + after, seconds=0.5)
    assert (counters.loads, counters.load_seconds, counters.refaults) == (1, 0.5, refaults)
    assert counters.refault_delay == (max(0.0, after) if refaults else 0.0)
    assert counters.last_refault == (1000.0 + after if refaults else None)


def test_a_start_without_an_unload_before_it_is_no_refault(counters):
    counters.unloaded_at = 1000.0
    for now in (1001.0, 1002.0):  # the second follows a process that ended by itself
        counters.count_start(now=now, seconds=0.1)
    assert (counters.loads, counters.refaults, counters.unloaded_at) == (2, 1, None)


def test_refaults_in_a_row_raise_the_level(counters):
    for now in (1000.0, 1010.0, 1020.0):
        counters.unloaded_at = now - 5
        counters.count_start(now=now, seconds=0.1)
    assert counters.refaults == 3
    assert 2.9 < counters.refault_level < 3.0


def test_starts_that_time_out_are_start_failures_too(counters):
    for error in (ProcessStartError("no"), ProcessStartTimeoutError("late"), KeyboardInterrupt()):
        counters.count_start_failure(error)
    assert (counters.start_failures, counters.start_timeouts, counters.loads) == (3, 1, 0)


def test_an_unload_of_unknown_size_keeps_the_last_measured_cost(counters):
    counters.count_unload(500)
    counters.count_unload(0)
    assert (counters.unloads, counters.reclaimed_bytes, counters.cost_bytes) == (2, 500, 500)


def test_what_a_start_costs_is_what_one_of_several_processes_held(counters):
    counters.count_unload(1000, processes=4)
    assert (counters.unloads, counters.reclaimed_bytes, counters.cost_bytes) == (1, 1000, 250)


def test_only_the_first_problem_is_logged(counters, caplog):
    for number in range(3):
        counters.count_problem("problem %d", number)
    assert counters.problems == 3
    assert [record.getMessage() for record in caplog.records] == ["problem 0"]
