"""One package process: its start, its calls, its hooks and its ends."""

import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from mempressure.errors import IsolationError, ProcessDiedError, ProcessStartError, ProcessStartTimeoutError
from mempressure.isolation.process import PackageProcess, ProcessGoneError
from tests.support.functions import isolated_functions as functions
from tests.support.waiting import until

MODULE = functions.__name__

pytestmark = pytest.mark.usefixtures("no_process_left")


def test_calls_run_in_another_process(process):
    assert process.call(MODULE, "pid") == process.pid != os.getpid()
    assert process.call(MODULE, "many", (1, 2), {"three": 3}) == ((1, 2), {"three": 3})
    assert process.call("os.path", "basename", ("/a/b",)) == "b"


def test_stop_ends_and_reaps(process):
    pid = process.pid
    assert not process.ended
    assert process.stop() == []
    assert process.ended
    assert process.pid == pid
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert process.stop() == []  # again has no effect


def test_a_stopped_process_is_freed_at_once_and_not_by_a_garbage_collection():
    gc.disable()
    try:
        process = PackageProcess("json", MODULE)
        gone = weakref.ref(process)
        process.stop()
        del process
        # The spawner drops its reference a moment after it set `ended`.
        until(lambda: gone() is None, "the process to be freed")
    finally:
        gc.enable()


def test_a_stopped_process_takes_no_calls(process):
    process.stop()
    with pytest.raises(ProcessGoneError, match="takes no more calls"):
        process.call(MODULE, "nothing")


def test_hooks_run_first_then_atexit_functions(tmp_path, monkeypatch):
    path = tmp_path / "order"
    monkeypatch.setenv("HOOK_FILE", str(path))
    process = PackageProcess("json", MODULE, hooks=[(MODULE, "hook")])
    process.call(MODULE, "register_atexit", (str(path),))
    assert process.stop() == []
    assert path.read_text() == f"hook {process.pid}\natexit\n"


def test_a_failing_hook_is_reported_and_keeps_no_other_from_running(tmp_path, monkeypatch):
    path = tmp_path / "order"
    monkeypatch.setenv("HOOK_FILE", str(path))
    process = PackageProcess("json", MODULE, hooks=[(MODULE, "failing_hook"), (MODULE, "hook")])
    (problem,) = process.stop()
    assert "this hook fails" in problem
    assert path.exists()


def test_a_process_that_dies_in_its_hook_is_reported():
    process = PackageProcess("json", MODULE, hooks=[(MODULE, "dying_hook")])
    (problem,) = process.stop()
    assert "killed by SIGKILL" in problem
    assert "before its on_unload and atexit functions were done" in problem


def test_a_hook_that_does_not_end_is_cut_off_at_the_deadline():
    process = PackageProcess("json", MODULE, hooks=[(MODULE, "endless_hook")])
    began = time.monotonic()
    (problem,) = process.stop(deadline_seconds=0.3)
    assert "more than 0.3 s" in problem
    assert 0.3 <= time.monotonic() - began < 3
    assert process.ended


def test_a_process_killed_between_calls_is_noticed_and_the_call_not_lost():
    deaths = []
    for _ in range(20):
        process = PackageProcess("json", MODULE, on_death=lambda: deaths.append(1))
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ProcessGoneError):  # not merely ProcessDiedError: the call did not run
            process.call(MODULE, "nothing")
        process.discard()
    assert len(deaths) == 20


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        ("kill_self", (), "killed by SIGKILL .*memory"),
        ("exit_at_once", (7,), "exit status 7"),
        ("exit_at_once", (0,), "exit status 0"),
        ("crash", (), "SIGSEGV"),
    ],
)
def test_an_end_during_a_call_is_reported(process, function, arguments, text):
    with pytest.raises(ProcessDiedError, match=text) as caught:
        process.call(MODULE, function, arguments)
    assert not isinstance(caught.value, ProcessGoneError)
    assert process.ended


@pytest.mark.parametrize(
    ("package", "module", "text"),
    [
        ("no_such_package_here", MODULE, "package 'no_such_package_here' cannot be imported.*ModuleNotFoundError"),
        ("json", "tests.unit.no_such_module", "module 'tests.unit.no_such_module' cannot be imported.*install it"),
        ("json", "broken_module", "(?s)ZeroDivisionError.*Traceback.*broken_module.py"),
        ("json", "leaving_module", "SystemExit: 3"),
        ("json", "crashing_module", "SIGKILL.*while it started"),
    ],
)
def test_a_start_that_fails_says_why(package, module, text, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("1 / 0")
    (tmp_path / "leaving_module.py").write_text("import sys; sys.exit(3)")
    (tmp_path / "crashing_module.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.syspath_prepend(tmp_path)
    deaths = []
    before = functions.open_files()
    with pytest.raises(ProcessStartError, match=text):
        PackageProcess(package, module, on_death=lambda: deaths.append(1))
    assert deaths == []
    assert functions.open_files() <= before + 2  # the spawner's, where this was its first start


@pytest.mark.parametrize("where", ["package", "module"])
def test_an_import_that_does_not_end_is_cut_off_and_says_what_to_do(where, tmp_path, monkeypatch):
    (tmp_path / "waiting_module.py").write_text("import threading; threading.Event().wait()")
    monkeypatch.syspath_prepend(tmp_path)
    package, module = ("waiting_module", MODULE) if where == "package" else ("json", "waiting_module")
    began, before = time.monotonic(), functions.open_files()
    with pytest.raises(ProcessStartTimeoutError, match=r"within 0\.5 s and was killed.*start_timeout=") as caught:
        PackageProcess(package, module, start_seconds=0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert repr(module) in str(caught.value)
    until(lambda: functions.open_files() <= before + 2, "its descriptors to be closed")


def test_a_process_that_never_answers_is_killed(tmp_path, monkeypatch):
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\nexec sleep 60\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(ProcessStartTimeoutError, match="did not finish importing"):
        PackageProcess("json", MODULE, start_seconds=0.3)


def test_an_interpreter_that_does_not_start_blocks_no_caller(tmp_path, monkeypatch):
    """As where the file system that it is on hangs."""
    monkeypatch.setattr(subprocess, "Popen", functools.partial(_slow, tmp_path / "go", subprocess.Popen))
    with pytest.raises(ProcessStartTimeoutError, match="no process could be started with"):
        PackageProcess("json", MODULE, start_seconds=0.3)
    (tmp_path / "go").touch()
    monkeypatch.undo()
    process = PackageProcess("json", MODULE)
    assert process.call(MODULE, "nothing") is None
    assert process.stop() == []


def _slow(go, start, *arguments, **options):
    until(go.exists, "the start to be let through")
    return start(*arguments, **options)


def test_an_interrupted_wait_kills_the_process(process, signal_after, tmp_path):
    started = tmp_path / "started"
    sender = signal_after(started, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        process.call(MODULE, "touch_then_wait", (str(started), 30))
    sender.join()
    assert not process.usable
    until(lambda: process.ended, "the process's end")
    with pytest.raises(ProcessGoneError):
        process.call(MODULE, "nothing")


def test_a_process_that_is_in_a_call_is_killed_by_stop(process, doomed_call):
    with doomed_call():
        began = time.monotonic()
        assert process.stop() == []
    assert time.monotonic() - began < 3


def test_what_cannot_be_sent_leaves_the_process_usable(process):
    with pytest.raises(IsolationError, match="argument 2 \\(lock\\)"):
        process.call(MODULE, "many", (1, threading.Lock()))
    with pytest.raises(IsolationError, match="result"):
        process.call(MODULE, "unpicklable")
    with pytest.raises(IsolationError, match=r"no_such_function.*cannot be found"):
        process.call(MODULE, "no_such_function")
    with pytest.raises(IsolationError, match=r"no_such_module.*cannot be found"):
        process.call("no_such_module", "function")
    assert process.call(MODULE, "pid") == process.pid
