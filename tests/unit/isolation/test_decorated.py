"""What is written above an isolated function belongs to the worker: only the declared body runs in its process."""

import asyncio
import os
import pickle

import pytest

from tests.support.functions import decorated_functions as functions


@pytest.fixture(autouse=True)
def fresh(no_process_left):
    functions.CALLS.clear()
    functions.cached.cache_clear()
    yield
    functions.package.close()


def test_a_wrapper_runs_in_the_worker_and_once():
    process, seen_there = functions.place()
    assert [os.getpid()] == functions.CALLS
    assert process == functions.package.process_pid
    assert seen_there == 0


def test_a_retry_is_the_workers(tmp_path):
    path = tmp_path / "attempts"
    with pytest.raises(ConnectionError, match="database away"):
        functions.flaky(str(path))
    assert path.read_text().split() == [str(functions.package.process_pid)] * 3


def test_a_coroutine_function_above_awaits_the_body():
    assert asyncio.run(functions.later(4)) == (8, functions.package.process_pid)


def test_a_cache_above_keeps_nothing_in_the_process():
    uses = functions.package.uses
    assert functions.cached(1) == functions.cached(1) == (1, functions.package.process_pid)
    assert functions.package.uses == uses + 1


def test_a_task_above_is_not_enqueued_again_in_the_process():
    assert functions.task.run(1) == (3, 0)
    assert functions.Task.enqueued == 0


def test_both_packages_are_in_the_process_which_was_set_up_before_them():
    assert functions.loaded() == ([True, True], [False])


def test_an_isolated_function_is_pickled_by_its_declaration():
    inner = functions.place.__wrapped__
    assert pickle.loads(pickle.dumps(inner)) is inner  # noqa: S301 - our own
