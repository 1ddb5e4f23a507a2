"""The inside of a package process: its environment, and its end with its worker, however that ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.functions import isolated_functions as functions
from tests.support.waiting import until

MODULE = functions.__name__
ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.usefixtures("no_process_left")


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_process_resembles_the_worker(process, monkeypatch):
    seen = process.call(MODULE, "surroundings")
    assert seen["variable"] == "json"
    assert seen["path"] == sys.path
    assert seen["argv"] == sys.argv
    assert seen["pythonpath"] == os.environ.get("PYTHONPATH")
    assert seen["stdin"] == "/dev/null"
    assert len(seen["files"]) == 5  # standard ones, its socket, and the listing itself
    assert seen["inheritable"] == []
    assert seen["threads"] == 2


def test_threads_left_behind_by_a_function_do_not_delay_the_end(process):
    process.call(MODULE, "leave_thread_behind")
    began = time.monotonic()
    assert process.stop() == []
    assert time.monotonic() - began < 3


def sockets(pid):
    found = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed since
            found += [file] if "socket" in os.readlink(file) else []
    return found


def test_a_fork_in_a_function_is_not_bound_to_the_package_process(process):
    child = process.call(MODULE, "leave_process_behind")
    assert process.stop() == []
    assert not is_gone(child)
    until(lambda: not sockets(child), "the child to close them, when it first runs")
    os.kill(child, signal.SIGTERM)  # at its default again, unlike in the package process
    until(lambda: is_gone(child), "the child's end")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_meant_for_the_worker_do_not_end_a_package_process(process, number):
    os.kill(process.pid, number)
    assert process.call(MODULE, "pid") == process.pid


def test_the_watching_thread_sees_the_worker_leave_during_a_call(process, doomed_call):
    # The kernel sends no signal here: the worker lives on, only the connection ends.
    with doomed_call():
        process._channel.shutdown()
        until(lambda: process.ended, "the process's end", seconds=2)


PARENT = f"""
import sys, threading
sys.path.insert(0, {str(ROOT)!r})
from mempressure.isolation.process import PackageProcess
process = PackageProcess("json", {MODULE!r})
print(process.pid, flush=True)
"""


def parent(code, **options):
    return subprocess.Popen(
        [sys.executable, "-c", PARENT + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize("function", ["touch_then_wait", "touch_then_hold_the_gil"])
def test_no_orphan_stays_where_the_worker_is_killed_in_a_call(function, tmp_path):
    started = tmp_path / "started"
    with parent(f"process.call({MODULE!r}, {function!r}, ({str(started)!r}, 60))") as worker:
        pid = int(worker.stdout.readline())
        until(started.exists, "the call to begin")
        worker.kill()
        worker.wait()
        until(lambda: is_gone(pid), "the process's end", seconds=2)


def test_no_orphan_stays_where_the_worker_is_killed_between_calls():
    with parent("sys.stdin.read()") as worker:
        pid = int(worker.stdout.readline())
        worker.kill()
        worker.wait()
        until(lambda: is_gone(pid), "the process's end", seconds=2)


def test_an_orderly_end_of_the_worker_runs_the_hooks(tmp_path):
    path = tmp_path / "order"
    code = f"process._hooks = [({MODULE!r}, 'hook')]"
    with parent(code, env={**os.environ, "HOOK_FILE": str(path)}) as worker:
        pid = int(worker.stdout.readline())
        assert worker.wait(timeout=10) == 0
        assert path.read_text() == f"hook {pid}\n"
        assert is_gone(pid)


def test_a_hook_that_hangs_at_the_workers_end_takes_no_time_of_other_processes(tmp_path):
    """Were they ended one after the other, the later ones would have no time left."""
    path = tmp_path / "order"
    code = f"""
others = [PackageProcess("json", {MODULE!r}) for _ in range(3)]
process._hooks = [({MODULE!r}, 'hook')]
for other in others:
    other._hooks = [({MODULE!r}, 'endless_hook')]
from mempressure.isolation import process as module
module._processes = [*others, process]
"""
    with parent(code, env={**os.environ, "HOOK_FILE": str(path)}) as worker:
        pid = int(worker.stdout.readline())
        assert worker.wait(timeout=20) == 0
        assert path.read_text() == f"hook {pid}\n"


def test_a_forked_child_does_not_keep_the_parents_process_alive(tmp_path):
    code = """
import os, time
if os.fork() == 0:
    os.close(1)
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""
    with parent(code) as worker:
        pid = int(worker.stdout.readline())
        worker.wait(timeout=10)
        until(lambda: is_gone(pid), "the process's end", seconds=2)
