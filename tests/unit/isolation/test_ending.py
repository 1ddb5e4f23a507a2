"""The end of package processes: hooks, deadlines, what is told about them, and calls that run for nobody."""

import os
import threading
import time

import psutil
import pytest

from mempressure.isolation import ending
from tests.support.functions import isolated_functions as functions
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("no_process_left")


@pytest.fixture
def problems(monkeypatch):
    """What was told about the ends of processes."""
    told = []
    finish = ending.finish

    def noting(*args, **options):
        stopped = finish(*args, **options)
        told.extend(stopped.problems)
        return stopped

    monkeypatch.setattr("mempressure.isolation.ending.finish", noting)
    return told


def test_hooks_run_first_then_atexit_functions(make_call, tmp_path, monkeypatch, problems):
    path = tmp_path / "order"
    monkeypatch.setenv("HOOK_FILE", str(path))
    call = make_call(on_unload=functions.hook)
    pid = call("pid")
    call("register_atexit", str(path))
    assert call.package.unload()[1] is None
    assert path.read_text() == f"hook {pid}\natexit\n"
    assert problems == []


def test_a_failing_hook_is_reported(make_call, problems):
    call = make_call(on_unload=functions.failing_hook)
    call("nothing")
    assert call.package.unload()[1] is None
    assert "its on_unload function failed" in problems[0]
    assert "this hook fails" in problems[0]


def test_a_process_that_dies_in_its_hook_is_reported(make_call, problems):
    call = make_call(on_unload=functions.dying_hook)
    call("nothing")
    assert call.package.unload()[1] is None
    assert problems == ["it ended before its on_unload and exit functions were done"]
    assert call.package.process_deaths == 0  # its end was asked for


def test_a_hook_that_does_not_end_is_cut_off_at_the_deadline(make_call, problems):
    call = make_call(on_unload=functions.endless_hook)
    pid = call("pid")
    began = time.monotonic()
    assert call.package.unload(deadline_seconds=0.3)[1] is None
    assert time.monotonic() - began >= 0.3
    assert "more than 0.3 s" in problems[0]
    assert not psutil.pid_exists(pid)


def test_threads_left_behind_by_a_function_do_not_delay_the_end(call, package):
    call("leave_thread_behind")
    began = time.monotonic()
    assert package.unload()[1] is None
    assert time.monotonic() - began < 3


def test_a_process_in_a_call_is_left_alone_by_unload_and_killed_by_close(call, package, doomed_call):
    with doomed_call():
        pids = package.process_pids
        assert package.unload() == (0, "in use")
        package.close()
        assert not any(map(psutil.pid_exists, pids))


def test_a_stopped_process_is_in_use_and_killed_by_close(call, package):
    pid = call("pid")
    os.kill(pid, 19)
    assert package.unload(deadline_seconds=0.2) == (0, "in use")
    package.close()
    assert not psutil.pid_exists(pid)


def test_all_processes_end_and_their_memory_is_told_together(make_call, tmp_path):
    call = make_call(processes=2)
    go = tmp_path / "go"
    callers = [threading.Thread(target=call, args=("wait_for_file", str(go))) for _ in range(2)]
    for caller in callers:
        caller.start()
    pids = until(lambda: len(call.package.process_pids) == 2 and call.package.process_pids, "two processes")
    go.touch()
    for caller in callers:
        caller.join()
    held, reason = call.package.unload()
    assert (held > 4_000_000, reason, call.package.unloads) == (True, None, 1)
    assert not any(map(psutil.pid_exists, pids))


def test_the_end_of_an_idle_process_frees_its_files(call, package, tmp_path):
    call("nothing")
    before = functions.open_files()
    for _ in range(3):
        package.unload()
        call("nothing")
    until(lambda: functions.open_files() <= before, "descriptors to be closed")


def test_unload_by_several_threads_at_once_ends_it_once(call, package):
    for _ in range(5):
        call("nothing")
        results = []
        threads = [threading.Thread(target=lambda: results.append(package.unload())) for _ in range(4)]  # noqa: B023 - joined here
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(reason is None for _, reason in results) >= 1
        assert package.process_pids == []
    assert package.process_deaths == 0
