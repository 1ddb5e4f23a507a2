"""Calls as messages: which functions, arguments, results and exceptions can be sent, and what is said of the others."""

import functools
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mempressure.errors import IsolationError
from mempressure.isolation.calls import RemoteTraceback
from mempressure.isolation.function import IsolatedFunction
from tests.support.functions import isolated_functions as functions

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.usefixtures("no_process_left")


def nested():
    def inner():
        pass

    return inner


async def coroutine():
    pass


def generator():
    yield 1


async def async_generator():
    yield 1


class Holder:
    def method(self):
        pass


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: 1, "lambda.*top level of a module"),
        (nested(), "inside another function.*top level of a module"),
        (Holder.method, "defined in a class"),
        (coroutine, "coroutine function.*submit"),
        (async_generator, "coroutine function"),
        (generator, "generator"),
        (functools.partial(functions.square, 1), "no module and name"),
    ],
    ids=["lambda", "nested", "method", "async", "async generator", "generator", "partial"],
)
def test_what_cannot_be_isolated_is_refused_where_it_is_declared(package, function, text):
    with pytest.raises(IsolationError, match=text):
        IsolatedFunction(function, package=package)


def test_arrays_and_frames_arrive_and_are_writable(isolate):
    array = np.random.default_rng(1).random(3_000_000)
    got = isolate(functions.echo)(array)
    assert np.array_equal(got, array)
    got += 1
    changed = isolate(functions.add_one_in_place)(array)
    assert np.array_equal(changed, array + 1)
    frame = pd.DataFrame({"a": np.arange(500_000.0), "b": ["x"] * 500_000})
    same, total = isolate(functions.frame_sum)(frame)
    pd.testing.assert_frame_equal(same, frame)
    assert total == float(frame["a"].sum())


def test_exceptions_keep_their_type_and_say_where_they_came_from(isolate):
    with pytest.raises(functions.CustomError, match="text") as caught:
        isolate(functions.raise_it)(functions.CustomError, "text", 42)
    assert caught.value.code == 42
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "isolated_functions.py" in str(caught.value.__cause__)
    assert "package_process/answers.py" not in str(caught.value.__cause__)
    with pytest.raises(KeyError) as caught:
        isolate(functions.raise_noted)()
    assert caught.value.__notes__ == ["a note"]
    assert "ValueError: the cause" in str(caught.value.__cause__)


def test_endless_recursion_is_its_callers_exception(package, isolate):
    with pytest.raises(RecursionError):
        isolate(functions.recurse_for_ever)()
    assert isolate(functions.pid)() == package.process_pid


@pytest.mark.parametrize(
    ("error", "arguments", "text"),
    [
        (functions.TalkativeError, (), r"TalkativeError: held by <unlocked _thread.lock"),
        (SystemExit, (3,), r"raised SystemExit: 3"),
        (KeyboardInterrupt, (), r"raised KeyboardInterrupt"),
        (GeneratorExit, (), r"raised GeneratorExit"),
    ],
)
def test_exceptions_that_cannot_be_sent_are_described(package, isolate, error, arguments, text):
    with pytest.raises(IsolationError, match=text) as caught:
        isolate(functions.raise_it)(error, *arguments)
    assert "isolated_functions.py" in str(caught.value.__cause__)
    assert isolate(functions.pid)() == package.process_pid
    assert package.loads == 1


@pytest.mark.parametrize(
    ("error", "arguments", "text", "lost"),
    [
        (functions.UnpicklableError, ("words",), "words", []),
        (functions.DisguisedError, ("words",), "words", []),
        (functions.UnloadableError, (1, 2), "1 and 2", []),
        (functions.HoldingError, ("words",), "words", ["attribute 'lock'"]),
    ],
)
def test_an_exception_that_cannot_be_pickled_keeps_its_type_and_text(package, isolate, error, arguments, text, lost):
    with pytest.raises(error) as caught:
        isolate(functions.raise_it)(error, *arguments)
    assert str(caught.value) == text
    assert "isolated_functions.py" in str(caught.value.__cause__)
    notes = [f"passed on by its package process without {name}, which cannot be pickled" for name in lost]
    assert getattr(caught.value, "__notes__", []) == notes
    assert isolate(functions.pid)() == package.process_pid
    assert package.loads == 1


def test_an_exception_keeps_what_can_be_pickled_of_it(isolate):
    with pytest.raises(functions.HoldingError) as caught:
        isolate(functions.raise_it)(functions.HoldingError, "words")
    assert caught.value.code == 7
    assert not hasattr(caught.value, "lock")


def test_a_group_of_exceptions_arrives_as_one(isolate):
    with pytest.raises(ExceptionGroup) as caught:
        isolate(functions.raise_group)()
    assert caught.group_contains(functions.CustomError, match="text", depth=2)
    assert caught.group_contains(ZeroDivisionError, depth=1)
    assert "isolated_functions.py" in str(caught.value.__cause__)


def test_an_exception_of_a_class_that_only_the_process_has_is_described(package, isolate):
    with pytest.raises(IsolationError, match=r"raise_local.<locals>.LocalError: here only .*cannot be passed on"):
        isolate(functions.raise_local)()
    assert isolate(functions.pid)() == package.process_pid


def test_a_message_of_any_length_arrives_and_its_traceback_is_shortened(isolate):
    with pytest.raises(ValueError, match=r"^x{1000000}$") as caught:
        isolate(functions.raise_long)(1_000_000)
    assert len(str(caught.value.__cause__)) < 20_000
    assert "characters left out" in str(caught.value.__cause__)
    assert "raise_long" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (functions.square, (b"x" * 2_000_000,), r"arguments of .*square take 2000\d\d\d bytes.* 1000000 .*send less"),
        (functions.large, (2_000_000,), r"result of .*large take 2000\d\d\d bytes.* 1000000 .*return less"),
        (functions.raise_long, (2_000_000,), r"raised ValueError: xxx.*characters left out.*cannot be passed on"),
    ],
)
def test_what_is_larger_than_the_limit_is_refused(make_package, function, arguments, text):
    package = make_package(message_limit=1_000_000)
    pid = IsolatedFunction(functions.pid, package=package)()
    with pytest.raises(IsolationError, match=f"(?s){text}"):
        IsolatedFunction(function, package=package)(*arguments)
    assert IsolatedFunction(functions.large, package=package)(900_000) == b"x" * 900_000
    assert IsolatedFunction(functions.pid, package=package)() == pid


def test_arguments_for_which_the_process_has_no_memory_are_refused_and_it_stays_usable(package, isolate):
    pid = isolate(functions.allow_no_more_memory_than)(100 << 20)
    with pytest.raises(IsolationError, match=r"arguments of .* do not fit .*no memory for 20\d{7} bytes; send less"):
        isolate(functions.nothing_of)(np.zeros(25_000_000), "more")
    assert isolate(functions.pid)() == pid


def test_a_result_for_which_the_worker_has_no_memory_is_refused_and_the_process_stays_usable():
    code = f"""
import os, resource, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.support.functions import isolated_functions as functions
from mempressure.errors import IsolationError
package = functions.recursive_package
large = functions.IsolatedFunction(functions.large, package=package)
pid = functions.IsolatedFunction(functions.pid, package=package)
before = pid()
functions.allow_no_more_memory_than(100 << 20)
try:
    large(200 << 20)
except IsolationError as error:
    print(error)
print(pid() == before, flush=True)
"""
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    said, same = program.stdout.splitlines()
    assert "does not fit into the memory of this process: no memory for 2097" in said
    assert "return less" in said
    assert (program.returncode, same, program.stderr) == (0, "True", "")


def test_an_exception_whose_text_fails_still_arrives(package, isolate):
    with pytest.raises(functions.MuteError):
        isolate(functions.raise_it)(functions.MuteError)
    assert isolate(functions.pid)() == package.process_pid


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "text"),
    [
        (functions.many, (1, threading.Lock()), {}, r"argument 2 \(lock\)"),
        (functions.many, (1,), {"key": lambda: 1}, r"argument 'key' \(function\)"),
        (functions.many, ((n for n in range(3)),), {}, r"argument 1 \(generator\)"),
        (functions.unpicklable, (), {}, "the result of .*unpicklable.*lock"),
        (
            functions.many,
            (functions.EvilLoad(ValueError),),
            {},
            "arguments of .* cannot be unpickled.*ValueError: evil",
        ),
        (
            functions.many,
            (functions.EvilLoad(SystemExit),),
            {},
            "arguments of .* cannot be unpickled.*SystemExit: evil",
        ),
        (functions.make_evil, (ValueError,), {}, "result of .* cannot be unpickled.*ValueError: evil"),
        (functions.make_evil, (SystemExit,), {}, "result of .* cannot be unpickled.*SystemExit: evil"),
    ],
)
def test_what_cannot_be_sent_is_named_and_the_process_stays_usable(package, isolate, function, args, kwargs, text):
    large = np.arange(200_000.0)  # its buffers must not be left in the socket
    with pytest.raises(IsolationError, match=f"(?s){text}"):
        isolate(function)(*args, **({"large": large, **kwargs} if function is functions.many else kwargs))
    assert isolate(functions.square)(4) == 16
    assert isolate(functions.square)(5) == 25
    assert package.loads <= 1


def test_a_class_of_the_main_program_is_refused_with_advice(package, isolate):
    main = sys.modules["__main__"]
    kind = type("OnlyHere", (), {"__module__": "__main__"})
    main.OnlyHere = kind
    try:
        with pytest.raises(IsolationError, match=r"OnlyHere.*importable module"):
            isolate(functions.echo)(kind())
    finally:
        del main.OnlyHere
    assert isolate(functions.square)(4) == 16
