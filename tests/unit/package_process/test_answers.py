"""Answers: what a call becomes in a package process, without a process."""

import numpy as np
import pytest

from mempressure.package_process.answers import answer, description
from mempressure.protocol import frames
from mempressure.protocol.frames import Payload, decode, encode
from tests.support.functions import isolated_functions as functions

MODULE = functions.__name__


def answered(function, *args, limit=1 << 30, plain=False, packages=("json",), **kwargs):
    call = encode((MODULE, function, MODULE, args, kwargs, plain))
    kind, payload = answer(call, limit=limit, packages=packages)
    return kind, decode(payload)


def test_a_result_is_the_functions():
    assert answered("many", 1, two=2) == (frames.RESULT, ((1,), {"two": 2}))


def test_an_exception_comes_with_its_type_text_and_traceback():
    kind, (pickled, name, text, trace) = answered("raise_it", KeyError, "missing")
    assert (kind, name, text) == (frames.RAISED, "KeyError", "'missing'")
    assert pickled is not None
    assert "in raise_it" in trace
    assert "answers.py" not in trace


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_programs_ends_no_process(kind):
    assert answered("raise_it", kind)[0] == frames.RAISED


@pytest.mark.parametrize(
    ("function", "stage", "text"),
    [("no_such_function", "function", "declares 'no_such_function'"), ("unpicklable", "result", "cannot pickle")],
)
def test_what_cannot_be_run_or_sent_says_at_which_stage(function, stage, text):
    kind, (found, _, said, _) = answered(function)
    assert (kind, found) == (frames.REFUSED, stage)
    assert text in said


def test_arguments_that_cannot_be_unpickled_are_refused():
    kind, value = answer(Payload(b"no pickle"), limit=100, packages=())
    assert (kind, decode(value)[0]) == (frames.REFUSED, "arguments")


def test_a_result_above_the_limit_is_refused_with_both_sizes():
    kind, (stage, size, limit, _) = answered("large", 5000, limit=4000)
    assert (kind, stage, limit) == (frames.REFUSED, "limit", "4000")
    assert 5000 < int(size) < 5100
    assert answered("large", 3900, limit=4000)[0] == frames.RESULT


def test_large_buffers_count_for_the_limit():
    assert answered("make_array", 100_000, limit=400_000)[0] == frames.REFUSED
    assert answered("make_array", 100_000, limit=900_000)[0] == frames.RESULT


def test_a_plain_result_is_asked_for_by_the_call():
    kind, value = answered("echo", np.float64(0.5), plain=True, packages=("numpy",))
    assert (kind, value, type(value)) == (frames.RESULT, 0.5, float)
    kind, (stage, name, text, _) = answered("echo", np.arange(3), plain=True, packages=("numpy",))
    assert (kind, stage) == (frames.REFUSED, "plain")
    assert name.endswith("NotPlainError")
    assert "numpy.ndarray" in text


def test_long_texts_keep_their_beginning_and_end():
    _, text, trace = description(ValueError("a" * 40_000 + "z"), None)
    assert text.startswith("aaa")
    assert text.endswith("z")
    assert "characters left out" in text
    assert len(text) < 17_000
    assert len(trace) < 17_000


def test_an_error_whose_text_fails_is_described():
    assert description(functions.MuteError(), None)[1] == "<its __str__ failed>"
