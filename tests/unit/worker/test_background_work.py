import threading

import pytest

from mempressure.worker.background_work import BackgroundWork
from tests.support.forking import in_child


def test_work_is_named_while_any_of_its_blocks_is_open():
    work = BackgroundWork()
    with work.running("flusher"):
        with work.running("flusher"), work.running("a mailer"):
            assert work.names() == ["a mailer", "flusher"]
        assert work.names() == ["flusher"]
    assert work.names() == []


def test_work_ends_with_an_exception_and_is_seen_from_other_threads():
    work, seen = BackgroundWork(), []

    @work.running("flusher")
    def flush():
        thread = threading.Thread(target=lambda: seen.append(work.names()))
        thread.start()
        thread.join()
        raise OSError("the queue is gone")

    for _ in range(2):
        with pytest.raises(OSError, match="the queue is gone"):
            flush()
    assert (seen, work.names()) == ([["flusher"]] * 2, [])


def test_a_forked_child_has_none_of_its_parents_work():
    work = BackgroundWork()

    def has_none():
        work.after_fork()
        assert work.names() == []

    with work.running("flusher"):
        in_child(has_none)
