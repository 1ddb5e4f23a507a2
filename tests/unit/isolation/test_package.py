"""Isolated packages: calls, processes that end by themselves, and unloading."""

import gc
import os
import re
import signal
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from mempressure.errors import IsolationError, ProcessDiedError, ProcessStartError, ProcessStartTimeoutError
from mempressure.isolation.function import IsolatedFunction, IsolatedPackage
from mempressure.isolation.generation import memory_of
from mempressure.measure.process import ProcessMemory
from tests.support.doubles.clock import Clock
from tests.support.forking import in_child
from tests.support.functions import isolated_functions as functions
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("no_process_left")


def test_a_call_runs_in_the_packages_process(package, isolate):
    pid = isolate(functions.pid)
    assert package.process_pid is None
    assert pid() == package.process_pid != os.getpid()
    assert isolate(functions.many)(1, two=2) == ((1,), {"two": 2})
    assert package.loads == 1


def test_results_that_are_kept_outlive_the_process(package, isolate):
    make = isolate(functions.make_array)
    kept = [make(100_000) for _ in range(20)]
    package.unload()
    gc.collect()
    make(100_000)
    assert all(np.array_equal(array, np.arange(100_000.0)) for array in kept)


def test_a_call_within_a_call_of_the_same_thread_is_refused_not_deadlocked(package, isolate, signal_after, tmp_path):
    wait_for, started, go = isolate(functions.touch_then_wait_for_file), tmp_path / "started", tmp_path / "go"
    seen = []

    def handler(number, frame):
        try:
            isolate(functions.nothing)()
        except IsolationError as error:
            seen.append(str(error))
        finally:
            go.touch()

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        sender = signal_after(started, signal.SIGUSR1)
        assert wait_for(str(started), str(go)) == "seen"
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert "signal handler" in seen[0]


def test_a_package_that_is_not_installed_is_reported(make_package):
    package = make_package("no_such_package_here")
    function = IsolatedFunction(functions.square, package=package)
    for _ in range(2):
        with pytest.raises(ProcessStartError, match="No module named 'no_such_package_here'"):
            function(1)
    assert (package.loads, package.active_calls, package.process_deaths, package.process_pid) == (0, 0, 0, None)
    assert package.start_failures == 2


def test_callers_that_waited_for_a_start_that_hung_do_not_each_wait_for_another(make_package, tmp_path, monkeypatch):
    (tmp_path / "waiting_package.py").write_text(
        "import os, time\nwhile not os.path.exists(os.environ['GO']): time.sleep(0.01)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GO", str(tmp_path / "go"))
    package = make_package("waiting_package", start_timeout=1.0)
    square = IsolatedFunction(functions.square, package=package)
    with ThreadPoolExecutor(4) as pool:
        failures = [pool.submit(square, number).exception for number in range(4)]
        assert {type(failure(timeout=20)) for failure in failures} == {ProcessStartTimeoutError}
    # All four came while the first one's process was starting.
    assert (package.start_failures, package.loads, package.active_calls, package.process_deaths) == (1, 0, 0, 0)
    with pytest.raises(ProcessStartTimeoutError):  # one that comes later tries for itself
        square(1)
    assert package.start_failures == 2
    package.start_timeout = 60.0
    (tmp_path / "go").touch()
    assert square(3) == 9


def test_a_process_that_dies_in_a_call_fails_that_call_only(package, isolate):
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        isolate(functions.kill_self)()
    assert package.process_pid is None
    assert isolate(functions.square)(3) == 9
    assert (package.loads, package.process_deaths, package.active_calls, package.unloads) == (2, 1, 0, 0)


def test_a_dead_idle_process_counts_as_not_loaded(package, isolate):
    isolate(functions.nothing)()
    os.kill(package.process_pid, signal.SIGKILL)
    until(lambda: package.process_pid is None, "the process's end")
    assert package.unload() == (0, "not loaded")
    assert package.process_deaths == 1


def test_an_interrupted_caller_leaves_nothing_out_of_step(package, isolate, signal_after, tmp_path):
    started = tmp_path / "started"
    sender = signal_after(started, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        isolate(functions.touch_then_wait)(str(started), 30)
    sender.join()
    assert isolate(functions.square)(6) == 36
    assert (package.active_calls, package.loads, package.process_deaths) == (0, 2, 0)


def test_unload_gives_back_what_the_process_held(package, isolate):
    isolate(functions.nothing)()
    pid = package.process_pid
    reclaimed, reason = package.unload()
    assert reason is None
    assert 2_000_000 < reclaimed < 100_000_000
    assert not psutil.pid_exists(pid)
    assert (package.unloads, package.reclaimed_bytes, package.process_pid) == (1, reclaimed, None)
    assert package.unload() == (0, "not loaded")


def test_one_worker_measures_a_process_and_the_others_read_it(package, isolate):
    pid = isolate(functions.pid)()
    measured = memory_of(pid, oldest_seconds=60)
    assert measured.private > 2_000_000
    (record,) = package._processes.generation.records().values()
    record.private = 12345
    assert memory_of(pid, oldest_seconds=60) == ProcessMemory(measured.proportional, 12345)
    assert memory_of(pid, oldest_seconds=0).private > 2_000_000
    package.unload()
    with pytest.raises(ProcessLookupError):
        memory_of(pid, oldest_seconds=0)


def test_unload_counts_nothing_for_a_process_that_cannot_be_measured(make_package):
    def gone(pid):
        raise ProcessLookupError(f"process {pid} is gone")

    package = make_package(measure=gone)
    IsolatedFunction(functions.nothing, package=package)()
    assert package.unload() == (0, None)


def test_unload_respects_use_and_idle_time(make_package, tmp_path):
    package = make_package(clock=Clock(1000.0))
    go = tmp_path / "go"
    assert package.last_used is None
    future = IsolatedFunction(functions.wait_for_file, package=package).submit(str(go))
    until(lambda: package.process_pid is not None, "the process's start")
    assert package.active_calls == 1
    assert package.unload() == (0, "in use")
    assert package.unload(idle_for=0) == (0, "in use")
    go.touch()
    future.result(timeout=10)
    assert package.last_used == 1000.0
    held, reason = package.unload(idle_for=60)
    assert held == 0
    assert re.fullmatch(r"used \d\.\d s ago", reason)
    until(lambda: package.unload(idle_for=0.2)[1] is None, "the process to be idle for long enough")


def test_refaults_are_starts_soon_after_an_unload(make_package):
    clock = Clock(1000.0)
    package = make_package(clock=clock)
    nothing = IsolatedFunction(functions.nothing, package=package)
    for gap, refaults in [(0, 0), (59, 1), (61, 1), (0, 2)]:
        clock.now += gap
        nothing()
        assert package.refaults == refaults
        package.unload()
    assert package.loads == 4
    assert package.load_seconds > 0


def test_a_call_during_the_stop_gets_a_fresh_process(make_package, tmp_path, monkeypatch):
    go = tmp_path / "go"
    monkeypatch.setenv("HOOK_FILE", str(go))
    package = make_package(on_unload=functions.waiting_hook)
    pid = IsolatedFunction(functions.pid, package=package)
    first = pid()
    stopping = threading.Thread(target=package.unload, kwargs={"deadline_seconds": 60.0})
    stopping.start()
    until(lambda: package.process_pid is None, "the stop to begin")
    second = pid()
    assert stopping.is_alive()
    assert second == package.process_pid != first
    go.touch()
    stopping.join()
    assert pid() == second
    go.unlink()  # this hook does not end before it is cut off
    assert package.unload(deadline_seconds=1.0)[1] is None


def test_on_unload_runs_in_the_process_and_its_failure_fails_no_unload(make_package, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HOOK_FILE", str(tmp_path / "hook"))
    package = make_package(on_unload=functions.hook)
    pid = IsolatedFunction(functions.pid, package=package)()
    package.unload()
    assert (tmp_path / "hook").read_text() == f"hook {pid}\n"
    assert package.problems == 0

    package = make_package(on_unload=functions.failing_hook)
    for _ in range(2):
        IsolatedFunction(functions.nothing, package=package)()
        assert package.unload()[0] > 0
    assert package.problems == 2
    assert caplog.text.count("RuntimeError: this hook fails") == 1
    with pytest.raises(IsolationError, match="lambda"):
        IsolatedPackage("json", on_unload=lambda: None)
    with pytest.raises(IsolationError, match="no module and name"):
        IsolatedPackage("json", on_unload="hook")
    of_main = types.FunctionType(functions.hook.__code__, {"__name__": "__main__"}, "hook")
    with pytest.raises(IsolationError, match="function hook is defined in the main program"):
        IsolatedPackage("json", on_unload=of_main)


def test_on_change_is_called_without_locks_and_its_errors_are_contained(make_package, caplog):
    seen = []

    def changed():
        seen.append((package.loads, package.unloads, package.process_pid is not None))
        package.unload()  # would wait for ever, were a lock held; refused, since a call runs
        if len(seen) == 2:
            IsolatedFunction(functions.nothing, package=package)()
        raise RuntimeError("listener")

    package = make_package(on_change=changed)
    assert IsolatedFunction(functions.square, package=package)(2) == 4
    assert seen == [(1, 0, True)]
    package.unload()
    assert seen[:3] == [(1, 0, True), (1, 1, False), (2, 1, True)]
    assert package.problems == len(seen)
    assert "RuntimeError('listener')" in caplog.text


def test_close_ends_the_process_and_a_later_call_starts_another(package, isolate):
    first = isolate(functions.pid)()
    package.close()
    assert package.process_pid is None
    assert isolate(functions.pid)() != first


def test_a_forked_child_starts_its_own(package, isolate):
    pid = isolate(functions.pid)
    ours = pid()
    isolate(functions.square).submit(2).result(timeout=10)

    def child():
        assert (package.loads, package.process_pid, package.last_used) == (0, None, None)
        assert package.unload() == (0, "not loaded")
        theirs = pid()
        assert theirs not in {ours, os.getpid()}
        assert isolate(functions.square).submit(3).result(timeout=10) == 9
        assert package.unload()[0] > 0

    in_child(child)
    assert pid() == ours
    assert package.loads == 1


def test_connections_that_were_kept_to_ended_processes_fail_no_call(package, isolate):
    echo = isolate(functions.echo)
    large = b"x" * (1 << 20)  # joins the queue by a connection of its own, which is kept
    for number in range(20):
        assert echo(large) == large
        assert echo(number) == number
        assert package.unload()[1] is None
    assert echo(20) == 20
