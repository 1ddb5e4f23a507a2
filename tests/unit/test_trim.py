import gc
import threading

import pytest

from mempressure import trim as trim_module
from mempressure.trim import PressureCallbacks, trim


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
    assert callbacks.call("high") == []
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
        freed, problems = trim(callbacks, level="medium")
    finally:
        gc.enable()
    assert freed > 30 << 20
    assert problems == []
