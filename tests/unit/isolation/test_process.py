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
from mempressure.isolation.process import HostGoneError, PackageProcess
from tests.support import isolated_functions as functions
from tests.support.waiting import until

MODULE = functions.__name__

pytestmark = pytest.mark.usefixtures("no_process_left")


def test_calls_run_in_another_process(host):
    assert host.call(MODULE, "pid") == host.pid != os.getpid()
    assert host.call(MODULE, "many", (1, 2), {"three": 3}) == ((1, 2), {"three": 3})
    assert host.call("os.path", "basename", ("/a/b",)) == "b"


def test_stop_ends_and_reaps(host):
    pid = host.pid
    assert not host.ended
    assert host.stop() == []
    assert host.ended
    assert host.pid == pid
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert host.stop() == []  # again is nothing


def test_a_stopped_host_is_freed_at_once_and_not_by_a_garbage_collection():
    gc.disable()
    try:
        host = PackageProcess("json", MODULE)
        gone = weakref.ref(host)
        host.stop()
        del host
        # The thread that keeps hosts lets go a moment after telling of the end.
        until(lambda: gone() is None, "the host to be freed")
    finally:
        gc.enable()


def test_a_stopped_host_takes_no_calls(host):
    host.stop()
    with pytest.raises(HostGoneError, match="cannot take calls"):
        host.call(MODULE, "nothing")


def test_hooks_run_first_then_atexit_functions(tmp_path, monkeypatch):
    path = tmp_path / "order"
    monkeypatch.setenv("HOOK_FILE", str(path))
    host = PackageProcess("json", MODULE, hooks=[(MODULE, "hook")])
    host.call(MODULE, "register_atexit", (str(path),))
    assert host.stop() == []
    assert path.read_text() == f"hook {host.pid}\natexit\n"


def test_a_failing_hook_is_told_and_keeps_no_other_from_running(tmp_path, monkeypatch):
    path = tmp_path / "order"
    monkeypatch.setenv("HOOK_FILE", str(path))
    host = PackageProcess("json", MODULE, hooks=[(MODULE, "failing_hook"), (MODULE, "hook")])
    (problem,) = host.stop()
    assert "this hook fails" in problem
    assert path.exists()


def test_a_host_that_dies_in_its_hook_is_told():
    host = PackageProcess("json", MODULE, hooks=[(MODULE, "dying_hook")])
    (problem,) = host.stop()
    assert "killed by SIGKILL" in problem
    assert "before its on_unload and atexit functions were through" in problem


def test_a_hook_that_does_not_end_is_cut_off_at_the_deadline():
    host = PackageProcess("json", MODULE, hooks=[(MODULE, "endless_hook")])
    began = time.monotonic()
    (problem,) = host.stop(deadline_seconds=0.3)
    assert "more than 0.3 s" in problem
    assert 0.3 <= time.monotonic() - began < 3
    assert host.ended


def test_a_host_killed_between_calls_is_noticed_and_the_call_not_lost():
    deaths = []
    for _ in range(20):
        host = PackageProcess("json", MODULE, on_death=lambda: deaths.append(1))
        os.kill(host.pid, signal.SIGKILL)
        with pytest.raises(HostGoneError):  # not merely ProcessDiedError: the call did not run
            host.call(MODULE, "nothing")
        host.discard()
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
def test_an_end_during_a_call_is_told(host, function, arguments, text):
    with pytest.raises(ProcessDiedError, match=text) as caught:
        host.call(MODULE, function, arguments)
    assert not isinstance(caught.value, HostGoneError)
    assert host.ended


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
    assert functions.open_files() <= before + 2  # the keeping thread's, where this was its first order


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


def test_a_host_that_never_says_a_word_is_cut_off(tmp_path, monkeypatch):
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\nexec sleep 60\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(ProcessStartTimeoutError, match="did not finish importing"):
        PackageProcess("json", MODULE, start_seconds=0.3)


def test_an_interpreter_that_does_not_even_start_keeps_nobody_waiting(tmp_path, monkeypatch):
    """As where the file system that it is on hangs."""
    monkeypatch.setattr(subprocess, "Popen", functools.partial(_slow, tmp_path / "go", subprocess.Popen))
    with pytest.raises(ProcessStartTimeoutError, match="no process could be started with"):
        PackageProcess("json", MODULE, start_seconds=0.3)
    (tmp_path / "go").touch()
    monkeypatch.undo()
    host = PackageProcess("json", MODULE)
    assert host.call(MODULE, "nothing") is None
    assert host.stop() == []


def _slow(go, start, *arguments, **options):
    until(go.exists, "the order to start")
    return start(*arguments, **options)


def test_an_interrupted_wait_kills_the_host(host, signal_after, tmp_path):
    started = tmp_path / "started"
    sender = signal_after(started, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        host.call(MODULE, "touch_then_wait", (str(started), 30))
    sender.join()
    assert not host.usable
    until(lambda: host.ended, "the host's end")
    with pytest.raises(HostGoneError):
        host.call(MODULE, "nothing")


def test_a_host_that_is_in_a_call_is_killed_by_stop(host, doomed_call):
    with doomed_call():
        began = time.monotonic()
        assert host.stop() == []
    assert time.monotonic() - began < 3


def test_what_cannot_travel_leaves_the_host_usable(host):
    with pytest.raises(IsolationError, match="argument 2 \\(lock\\)"):
        host.call(MODULE, "many", (1, threading.Lock()))
    with pytest.raises(IsolationError, match="result"):
        host.call(MODULE, "unpicklable")
    with pytest.raises(IsolationError, match=r"no_such_function.*cannot be found"):
        host.call(MODULE, "no_such_function")
    with pytest.raises(IsolationError, match=r"no_such_module.*cannot be found"):
        host.call("no_such_module", "function")
    assert host.call(MODULE, "pid") == host.pid
