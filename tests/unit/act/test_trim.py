import gc
import sys
import threading

import pytest

from mempressure.act import trim as trim_module
from mempressure.act.trim import PressureCallbacks, trim
from tests.support.forking import in_child


@pytest.fixture
def callbacks():
    return PressureCallbacks()


@pytest.mark.parametrize(
    ("level", "called"),
    [
        ("warning", ["warning"]),
        ("medium", ["warning", "medium"]),
        ("high", ["warning", "medium", "high"]),
        ("emergency", ["warning", "medium", "high", "emergency"]),
    ],
)
def test_callbacks_are_called_at_their_level_and_above(callbacks, level, called):
    seen = []
    for own in ("warning", "medium", "high", "emergency"):
        callbacks.add(own, lambda given, own=own: seen.append((own, given)))
    assert callbacks.call(level) == []
    assert seen == [(own, level) for own in called]


def test_an_unknown_level_is_refused(callbacks):
    with pytest.raises(ValueError, match="'panic' unknown; send one of warning, medium, high, emergency"):
        callbacks.add("panic", print)


def test_a_failing_callback_is_told_and_the_others_run(callbacks):
    seen = []

    def fails(level):
        raise RuntimeError(f"no {level}")

    callbacks.add("high", fails)
    callbacks.add("high", seen.append)
    (problem,) = callbacks.call("high")
    assert "fails" in problem
    assert "RuntimeError: no high" in problem
    assert seen == ["high"]


def test_a_hanging_callback_is_left_behind_and_not_called_again_until_it_ends(callbacks, monkeypatch):
    monkeypatch.setattr(trim_module, "CALLBACK_SECONDS", 0.05)
    release, calls = threading.Event(), []

    def hangs(level):
        calls.append(threading.current_thread())
        release.wait(30)

    callbacks.add("high", hangs)
    (problem,) = callbacks.call("high")
    assert "still runs after 0.05 s" in problem
    (problem,) = callbacks.call("high")
    assert "still runs since an earlier trim, and was not called again" in problem
    assert len(calls) == 1
    release.set()
    calls[0].join(10)
    assert callbacks.call("high") == []
    assert len(calls) == 2


def test_garbage_is_given_back_and_measured(callbacks):
    gc.disable()
    try:
        # Cycles of 40 MB that only the collector can free.
        for _ in range(40):
            cycle = [bytearray(1 << 20)]
            cycle.append(cycle)
        del cycle
        trimmed = trim(callbacks, level="medium")
    finally:
        gc.enable()
    assert trimmed.freed > 30 << 20
    assert (trimmed.unshared, trimmed.problems) == (0, [])


def test_one_that_leaves_the_program_is_contained(callbacks):
    callbacks.add("high", lambda level: sys.exit(3))
    (problem,) = callbacks.call("high")
    assert "failed: SystemExit: 3" in problem


def test_a_problem_is_counted_each_time_and_logged_once(callbacks, caplog):
    def fails(level):
        raise RuntimeError("broken")

    callbacks.add("high", fails)
    for _ in range(3):
        callbacks.call("high")
    assert callbacks.failures == 3
    (message,) = caplog.messages
    assert message.startswith("on_pressure callback ")
    assert message.endswith(".fails failed: RuntimeError: broken")


def test_together_they_take_no_longer_than_whoever_ordered_waits(callbacks, monkeypatch):
    monkeypatch.setattr(trim_module, "CALLBACK_SECONDS", 0.05)
    monkeypatch.setattr(trim_module, "ALL_CALLBACKS_SECONDS", 0.08)
    release = threading.Event()
    for _ in range(4):
        callbacks.add("high", lambda level: release.wait(30))
    problems = callbacks.call("high")
    release.set()
    assert len(problems) == 4
    assert [("still runs" in problem, "not called: those before it" in problem) for problem in problems[-2:]] == [
        (False, True),
        (False, True),
    ]


def test_where_there_is_no_thread_to_be_had_it_is_tried_again_later(callbacks, monkeypatch):
    seen = []
    callbacks.add("high", seen.append)

    def start(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        (problem,) = callbacks.call("high")
    assert "was not called: can't start new thread" in problem
    assert callbacks.call("high") == []
    assert seen == ["high"]


def test_callbacks_are_left_out_where_they_could_not_be_limited(callbacks):
    seen = []
    callbacks.add("high", seen.append)
    trim(callbacks, level="high", call=False)
    assert seen == []


def test_what_hangs_in_the_parent_does_not_hang_in_a_forked_child(callbacks, monkeypatch):
    monkeypatch.setattr(trim_module, "CALLBACK_SECONDS", 0.05)
    release = threading.Event()
    callbacks.add("high", lambda level: release.wait(30))
    callbacks.call("high")
    callbacks.after_fork()
    assert callbacks.failures == 0
    release.set()
    assert callbacks.call("high") == []


def test_pages_that_a_trim_unshares_are_told_from_what_others_allocate(callbacks):
    """In a child forked from a parent with much garbage-collected memory; and in a process that shares nothing."""
    held = [[] for _ in range(400_000)]  # 40 MB of what a collection writes to

    def check():
        trimmed = trim(callbacks, level="high")
        assert trimmed.unshared > 10 << 20, trimmed
        kept = []
        callbacks.add("high", lambda level: kept.append(bytearray(20 << 20)))
        trimmed = trim(callbacks, level="high")
        assert trimmed.freed < -(15 << 20)
        assert trimmed.unshared < 1 << 20

    gc.collect()
    in_child(check)
    assert len(held) == 400_000
