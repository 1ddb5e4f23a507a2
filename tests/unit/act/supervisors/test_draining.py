import threading

import pytest

from mempressure.act.supervisors.base import BackgroundWork, reason_not_to_end
from tests.support.forking import in_child

GRACE = (30.0, "gunicorn's graceful_timeout")


@pytest.mark.parametrize(
    ("work", "grace", "longest", "running", "reason"),
    [
        ([], GRACE, 0.0, 0.0, ""),
        ([], GRACE, 30.0, 30.0, ""),
        ([], GRACE, 31.0, 0.0, "may take 31 s (MEMPRESSURE_LONGEST_REQUEST), and gunicorn's graceful_timeout is 30 s"),
        ([], GRACE, 0.0, 31.0, "has run for 31 s already, and gunicorn's graceful_timeout is 30 s"),
        ([], None, 1e4, 1e4, ""),
        (["flusher", "mailer"], None, 0.0, 0.0, "would cut: flusher, mailer"),
    ],
)
def test_what_the_end_of_a_worker_would_cut_is_named(work, grace, longest, running, reason):
    found = reason_not_to_end(work=work, grace=grace, longest_request=longest, running=running)
    assert found.endswith(reason)
    assert bool(found) is bool(reason)


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
