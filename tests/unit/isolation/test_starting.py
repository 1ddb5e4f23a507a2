"""Starting package processes: what each failure says, and that those who wait for one share its failure."""

import os
import signal
import sys
import threading

import pytest

from mempressure.errors import ProcessStartError, ProcessStartTimeoutError
from mempressure.protocol.slots import slot_path
from tests.support.functions import isolated_functions as functions
from tests.support.waiting import until

MODULE = functions.__name__

pytestmark = pytest.mark.usefixtures("no_process_left")


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
def test_a_start_that_fails_says_why(make_package, package, module, text, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("1 / 0")
    (tmp_path / "leaving_module.py").write_text("import sys; sys.exit(3)")
    (tmp_path / "crashing_module.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.syspath_prepend(tmp_path)
    isolated = make_package(package)
    with pytest.raises(ProcessStartError, match=text):
        isolated.call(module, "work")
    before = functions.open_files()
    with pytest.raises(ProcessStartError, match=text):
        isolated.call(module, "work")
    assert (isolated.start_failures, isolated.process_deaths, isolated.loads) == (2, 0, 0)
    until(lambda: functions.open_files() <= before, "its descriptors to be closed")


@pytest.mark.parametrize("where", ["package", "module"])
def test_an_import_that_does_not_end_is_cut_off_and_says_what_to_do(make_package, where, tmp_path, monkeypatch):
    (tmp_path / "waiting_module.py").write_text("import threading; threading.Event().wait()")
    monkeypatch.syspath_prepend(tmp_path)
    package, module = ("waiting_module", MODULE) if where == "package" else ("json", "waiting_module")
    with pytest.raises(ProcessStartTimeoutError, match=r"within 0\.5 s and was killed.*start_timeout=") as caught:
        make_package(package, start_timeout=0.5).call(module, "work")
    assert repr(module) in str(caught.value)


def test_a_process_that_never_answers_is_killed(make_package, tmp_path, monkeypatch):
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\nexec sleep 60\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(ProcessStartTimeoutError, match="did not finish importing"):
        make_package(start_timeout=0.3).call(MODULE, "nothing")


def test_an_interpreter_that_cannot_be_started_is_named(make_package, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    before = functions.open_files()
    with pytest.raises(ProcessStartError, match="started with '/no/such/python'"):
        make_package().call(MODULE, "nothing")
    assert functions.open_files() <= before + 2  # of the generation


@pytest.mark.parametrize("executable", ["", None, "/usr/sbin/uwsgi"])
def test_the_interpreter_is_found_where_python_is_embedded(make_call, executable, monkeypatch):
    monkeypatch.setattr(sys, "executable", executable)
    assert make_call()("square", 3) == 9


def test_a_module_in_the_working_directory_cannot_shadow_what_a_process_starts_with(call, tmp_path, monkeypatch):
    (tmp_path / "socket.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(tmp_path)
    assert call("nothing") is None


def test_a_process_outlives_the_thread_whose_call_started_it(call):
    pids = []
    thread = threading.Thread(target=lambda: pids.append(call("pid")))
    thread.start()
    thread.join()
    assert [call("pid") for _ in range(20)] == pids * 20


def test_a_process_killed_between_calls_is_reaped_without_any_call(call, package):
    pid = call("pid")
    os.kill(pid, signal.SIGKILL)
    until(lambda: package.process_deaths == 1, "its end to be noticed")
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_one_more_is_started_only_while_calls_wait(make_call, tmp_path):
    call = make_call(processes=3)
    for _ in range(50):
        call("nothing")
    assert call.package.loads == 1
    go = tmp_path / "go"
    callers = [threading.Thread(target=call, args=("wait_for_file", str(go))) for _ in range(6)]
    for caller in callers:
        caller.start()
    until(lambda: len(call.package.process_pids) == 3, "three processes")
    assert call.package.waiting_calls == 3
    go.touch()
    for caller in callers:
        caller.join()
    assert call.package.loads == 3  # and never more
    until(lambda: len(call.package.process_pids) == 1, "the surplus ones to end", seconds=30)
    assert call.package.process_deaths == 0
    assert call("square", 3) == 9


def test_a_start_that_another_worker_does_not_finish_is_waited_for_so_long(call, package, monkeypatch):
    call("nothing")
    generation = package._processes.generation
    package.unload()
    lock = generation.start_lock()
    monkeypatch.setattr("mempressure.isolation.starting._LOCK_SECONDS", 0.2)
    package._processes.starter._start_seconds = 0.1
    try:
        with pytest.raises(ProcessStartTimeoutError, match=r"another worker has been starting .* more than 0\.3 s"):
            call("nothing")
    finally:
        lock.release()
    package._processes.starter._start_seconds = 60.0
    assert call("square", 2) == 4


def test_a_failure_is_shared_by_those_that_waited_for_that_start_only(make_package, tmp_path, monkeypatch):
    (tmp_path / "failing_package.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'at')!r}, 'w').close()\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.005)\n1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    package, failures = make_package("failing_package"), []

    def call():
        with pytest.raises(ProcessStartError, match="ZeroDivisionError") as caught:
            package.call(MODULE, "nothing")
        failures.append(caught.value)

    callers = [threading.Thread(target=call) for _ in range(5)]
    for caller in callers:
        caller.start()
    until((tmp_path / "at").exists, "the import to begin")
    until(lambda: package.active_calls == 5, "all to wait")
    (tmp_path / "go").touch()
    for caller in callers:
        caller.join()
    assert (len(failures), package.start_failures) == (5, 1)
    call()
    assert package.start_failures == 2


def test_slots_are_taken_from_the_lowest_on(call, package):
    first = call("pid")
    directory = package._processes.generation.directory
    assert package._processes.generation.living() == {0: first}
    assert not os.path.exists(slot_path(directory, 1))
    os.kill(first, signal.SIGKILL)
    second = call("pid")
    assert package._processes.generation.living() == {0: second}
