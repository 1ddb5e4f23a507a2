import os
import threading

import pytest

from mempressure import forks
from tests.support.forking import in_child
from tests.support.waiting import until


@pytest.fixture
def hooks(monkeypatch):
    """What begins anew, in a process that is another than the module was loaded in."""
    hooks = []
    monkeypatch.setattr(forks, "_hooks", hooks)
    monkeypatch.setattr(forks, "_pid", -1)
    return hooks


def test_a_process_that_was_not_forked_begins_nothing_anew(hooks, monkeypatch):
    monkeypatch.setattr(forks, "_pid", os.getpid())
    forks.in_child(lambda: pytest.fail("it is no child"))
    forks.ensure_own_process()


def test_a_child_begins_anew_once_and_in_order(hooks):
    begun = []
    forks.in_child(lambda: begun.append(1))
    forks.in_child(lambda: begun.append(2))
    forks.ensure_own_process()
    forks.ensure_own_process()
    assert begun == [1, 2]


def test_what_begins_anew_may_use_the_library(hooks):
    begun = []
    forks.in_child(forks.ensure_own_process)
    forks.in_child(lambda: begun.append(1))
    forks.ensure_own_process()
    assert begun == [1]


def test_of_several_threads_one_begins_and_the_others_wait(hooks):
    waiting, begun, over = threading.Event(), [], []

    def begin():
        begun.append(threading.get_ident())
        assert waiting.wait(10)

    def use():
        forks.ensure_own_process()
        over.append(len(begun))

    forks.in_child(begin)
    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: begun, "the first")
    assert over == []
    waiting.set()
    for thread in threads:
        thread.join(10)
    assert over == [1, 1, 1, 1]


def test_a_failure_is_told_once_to_the_thread_that_met_it(hooks):
    def fail():
        raise OSError(24, "Too many open files")

    begun = []
    forks.in_child(fail)
    forks.in_child(lambda: begun.append(1))
    with pytest.raises(OSError, match="Too many"):
        forks.ensure_own_process()
    forks.ensure_own_process()
    assert begun == [1]


def test_a_fork_that_python_tells_of_needs_no_use(monkeypatch):
    begun = []
    monkeypatch.setattr(forks, "_hooks", [lambda: begun.append(os.getpid())])

    def child():
        assert begun == [os.getpid()]
        forks.ensure_own_process()
        assert begun == [os.getpid()]

    in_child(child)
    assert begun == []
