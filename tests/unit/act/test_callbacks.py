import functools
import re
import sys
import threading

import pytest

from mempressure.act import callbacks as module
from mempressure.act.callbacks import PressureCallbacks
from mempressure.act.trim import release_free_pages
from mempressure.errors import ConfigurationError

MIB = 1 << 20
SLACK = 256 << 10
"""What the process itself may take meanwhile."""


@pytest.fixture
def callbacks():
    return PressureCallbacks()


def problems(called):
    return [each.line for each in called if each.line.startswith("on_pressure callback ")]


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
    assert problems(callbacks.call(level)) == []
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
    (problem,) = problems(callbacks.call("high"))
    assert "fails" in problem
    assert "RuntimeError: no high" in problem
    assert seen == ["high"]


def test_a_hanging_callback_is_left_behind_and_not_called_again_until_it_ends(callbacks, monkeypatch):
    monkeypatch.setattr(module, "CALLBACK_SECONDS", 0.05)
    release, calls = threading.Event(), []

    def hangs(level):
        calls.append(threading.current_thread())
        release.wait(30)

    callbacks.add("high", hangs)
    (problem,) = problems(callbacks.call("high"))
    assert "still runs after 0.05 s" in problem
    (problem,) = problems(callbacks.call("high"))
    assert "still runs since an earlier call, and was not called again" in problem
    assert len(calls) == 1
    release.set()
    calls[0].join(10)
    assert problems(callbacks.call("high")) == []
    assert len(calls) == 2


def test_one_that_leaves_the_program_is_contained(callbacks):
    callbacks.add("high", lambda level: sys.exit(3))
    (problem,) = problems(callbacks.call("high"))
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
    monkeypatch.setattr(module, "CALLBACK_SECONDS", 0.05)
    monkeypatch.setattr(module, "ALL_CALLBACKS_SECONDS", 0.08)
    release = threading.Event()
    for _ in range(4):
        callbacks.add("high", lambda level: release.wait(30))
    found = problems(callbacks.call("high"))
    release.set()
    assert len(found) == 4
    assert [("still runs" in problem, "not called: those before it" in problem) for problem in found[-2:]] == [
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
        (problem,) = problems(callbacks.call("high"))
    assert "was not called: can't start new thread" in problem
    assert problems(callbacks.call("high")) == []
    assert seen == ["high"]


def test_what_hangs_in_the_parent_does_not_hang_in_a_forked_child(callbacks, monkeypatch):
    monkeypatch.setattr(module, "CALLBACK_SECONDS", 0.05)
    release = threading.Event()
    callbacks.add("high", lambda level: release.wait(30))
    callbacks.call("high")
    callbacks.after_fork()
    assert callbacks.failures == 0
    release.set()
    assert problems(callbacks.call("high")) == []


def test_what_each_gave_back_is_measured_and_told(callbacks):
    caches = {"large": [bytearray(b"x") * (16 * MIB)], "small": [bytearray(b"x") * (4 * MIB)]}

    def drop_large(level):
        caches["large"].clear()

    def drops_and_fails(level):
        caches["small"].clear()
        raise ValueError("no\nmore")

    callbacks.add("high", drop_large)
    callbacks.add("high", drops_and_fails)
    callbacks.add("high", str.upper)
    large, small, nothing = callbacks.call("high", release=release_free_pages)
    assert 16 * MIB - SLACK <= large.reclaimed < 20 * MIB
    assert re.search(r"drop_large gave back 1[567]\.\d MiB$", large.line)
    assert 4 * MIB - SLACK <= small.reclaimed < 8 * MIB
    assert re.search(r"drops_and_fails failed: ValueError: no\nmore; gave back [345]\.\d MiB$", small.line)
    assert nothing == ("str.upper gave back nothing", 0)


def test_free_pages_are_returned_after_each_callback_before_it_is_measured(callbacks):
    released = []
    callbacks.add("high", lambda: released.append("called"))
    callbacks.add("high", lambda: released.append("called"))
    callbacks.call("high", release=lambda: released.append("released"))
    assert released == ["released", "called", "released", "called", "released"]


def test_where_memory_cannot_be_measured_they_are_called_all_the_same(callbacks, monkeypatch):
    def nothing():
        raise ProcessLookupError("no /proc/self/smaps_rollup")

    monkeypatch.setattr(module, "private_bytes", nothing)
    callbacks.add("high", str.upper)
    assert callbacks.call("high") == [("str.upper was called; what it gave back cannot be measured here", 0)]


class Cache:
    entries = 1

    def drop(self):
        self.entries = 0

    def drop_for(self, level):
        self.entries = level

    @classmethod
    def drop_all(cls):
        cls.dropped = True


class Callable:
    def __call__(self):
        Callable.dropped = True


class Made:
    levels = ()

    def __init__(self, level):
        Made.levels += (level,)


@functools.cache
def prices():
    return 1


SEEN = []


@pytest.mark.parametrize(
    ("callback", "arguments"),
    [
        (lambda: SEEN.append(()), ()),
        (lambda level: SEEN.append((level,)), ("high",)),
        (lambda *args: SEEN.append(args), ("high",)),
        (lambda level, other=None: SEEN.append((level,)), ("high",)),
        (lambda level="low": SEEN.append((level,)), ("high",)),
        (lambda *, other=None: SEEN.append(()), ()),
        (lambda **options: SEEN.append(()), ()),
        (functools.partial(lambda cache, level: SEEN.append((level,)), {}), ("high",)),
        (functools.partial(lambda cache: SEEN.append(()), {}), ()),
        (functools.wraps(lambda: None)(lambda *args, **options: SEEN.append(args)), ()),
        (SEEN.append, None),
    ],
)
def test_the_level_is_given_where_an_argument_is_taken(callbacks, callback, arguments):
    SEEN.clear()
    callbacks.add("high", callback)
    assert SEEN == [], "declaring calls nothing"
    assert problems(callbacks.call("high")) == []
    assert list(SEEN) == ["high" if arguments is None else arguments]


def test_methods_classes_instances_and_builtins_are_called_as_they_take_it(callbacks):
    cache, entries = Cache(), {1: 1}
    prices()
    for callback in (cache.drop_for, Cache.drop_all, Callable(), Made, entries.clear, prices.cache_clear):
        callbacks.add("high", callback)
    called = callbacks.call("high")
    assert problems(called) == []
    assert (cache.entries, Cache.dropped, Callable.dropped, Made.levels) == ("high", True, True, ("high",))
    assert (entries, prices.cache_info().currsize) == ({}, 0)
    names = [each.line.partition(" gave")[0] for each in called]
    assert names == ["Cache.drop_for", "Cache.drop_all", "Callable", "Made", "dict.clear", "prices.cache_clear"]
    callbacks.add("high", cache.drop)
    callbacks.call("high")
    assert cache.entries == 0


def test_a_type_error_inside_a_callback_is_its_failure_and_it_is_not_called_again(callbacks, monkeypatch):
    calls = []

    class Unreadable:
        __signature__ = "none"

        def __call__(self, *level):
            calls.append(level)
            raise TypeError("inside")

    callbacks.add("high", Unreadable())
    (problem,) = problems(callbacks.call("high"))
    assert "failed: TypeError: inside" in problem
    assert calls == [("high",)]


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (lambda level, other: None, r"\(level, other\) is called with the alert level or without any argument"),
        (lambda *, level: None, r"\(\*, level\) is called with the alert level or without any argument"),
        ("drop", "'drop' cannot be called; declare a function"),
    ],
)
def test_what_cannot_be_called_so_is_refused_at_the_declaration(callbacks, callback, words):
    with pytest.raises(ConfigurationError, match=words):
        callbacks.add("high", callback)
    assert len(callbacks) == 0


async def flush(level):
    """Flush."""


async def stream():
    yield 1


def rows():
    yield 1


class Flusher:
    async def __call__(self, level):
        """Flush."""


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (
            flush,
            r"flush is a coroutine function \(async def\).*asyncio\.run_coroutine_threadsafe\(flush\(level\), loop\)",
        ),
        (functools.partial(flush, "high"), r"flush is a coroutine function"),
        (Flusher(), r"Flusher is a coroutine function"),
        (stream, r"stream is an asynchronous generator function: calling it runs nothing"),
        (
            rows,
            r"rows is a generator function: calling it runs nothing.*declare a plain function that does the work$",
        ),
    ],
)
def test_what_would_run_nothing_is_refused_at_the_declaration(callbacks, callback, words):
    with pytest.raises(ConfigurationError, match=words):
        callbacks.add("high", callback)


def test_a_coroutine_that_a_callback_returns_is_a_failure(callbacks, recwarn):
    callbacks.add("high", lambda: flush("high"))
    (problem,) = problems(callbacks.call("high"))
    assert problem.endswith("returned a coroutine, which nothing here runs")
    assert not recwarn.list


@pytest.mark.parametrize("function", [lambda: (yield 1), stream], ids=["generator", "asynchronous generator"])
def test_a_generator_that_a_callback_returns_is_a_failure(callbacks, function):
    callbacks.add("high", lambda: function())  # noqa: PLW0108 -- what is added is to be a plain function
    (problem,) = problems(callbacks.call("high"))
    assert problem.endswith("returned a generator, which nothing here runs")


def test_the_lowest_level_of_all_is_known(callbacks):
    assert (len(callbacks), callbacks.lowest_level) == (0, "")
    for level in ("emergency", "medium", "high"):
        callbacks.add(level, str.upper)
    assert (len(callbacks), callbacks.lowest_level) == (3, "medium")
