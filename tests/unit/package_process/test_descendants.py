"""What a package process has started: found, measured, and ended with it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from mempressure.measure.process import process_memory, start_ticks
from mempressure.package_process import descendants
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[3]
CODE = "import sys; from tests.support.programs import process_starter; process_starter.main(sys.argv[1])"
WAYS = {
    "spawned": 4,
    "forked": 3,
    "busy": 3,
    "fork_server": 5,
    "multiprocessing_pool": 4,
    "joblib": 5,
    "deaf": 2,
    "own_session": 2,
}
"""Of each way the number of processes."""


def is_gone(pid):
    try:
        start_ticks(pid)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def leader(tmp_path):
    """A context manager that gives a process that has started others in a way, and its tree."""
    options = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    options["env"] = os.environ | {"TMPDIR": str(tmp_path)}  # a fork server leaves a folder there if it is killed

    @contextmanager
    def leader(way):
        with subprocess.Popen([sys.executable, "-c", CODE, way], **options) as process:
            try:
                yield process, (pids := json.loads(process.stdout.readline()))
            finally:
                process.kill()
        for pid in pids:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)

    return leader


def end(process):
    """Have a leader end in order and return its answers."""
    answers, _ = process.communicate("\n", timeout=20)
    return [json.loads(line) for line in answers.splitlines()]


@pytest.mark.parametrize("way", WAYS)
def test_all_that_it_started_ends_with_it(leader, way):
    with leader(way) as (process, pids):
        assert len(pids) == WAYS[way]
        (answer,) = end(process)
        assert [pid for pid in pids if not is_gone(pid)] == []
        assert answer["problems"] == []
        assert answer["seconds"] < 1
        assert process.returncode == 0


def test_a_process_that_has_started_nothing_ends_at_once(leader):
    with leader("nothing") as (process, pids):
        assert pids == [process.pid]
        (answer,) = end(process)
        assert answer["problems"] == []
        assert answer["seconds"] < 0.2


def test_exit_functions_run_after_tasks_that_do_not_end(leader):
    with leader("busy_threads") as (process, _):
        ran, answer = end(process)
        assert ran == {"ran": "exit function"}
        assert answer["problems"] == ["tasks of its executors took more than 0.48 s and were given up"]
        assert answer["seconds"] < 1


def test_a_failing_exit_function_does_not_keep_others_from_running(leader):
    with leader("failing_exit") as (process, _):
        ran, answer = end(process)
        assert ran == {"ran": "exit function"}
        assert answer["problems"] == []


def test_exit_functions_that_take_too_long_are_what_is_said_to_be_slow(leader):
    with leader("slow_exit") as (process, pids):
        (answer,) = end(process)
        assert answer == {"late": "its exit functions took more than 0.8 s"}
        assert process.returncode == -signal.SIGKILL
        assert all(is_gone(pid) for pid in pids)


@pytest.mark.parametrize("way", WAYS)
def test_killing_the_group_kills_all_that_it_started(leader, way):
    with leader(way) as (process, pids):
        descendants.kill_group(process.pid, start_ticks(process.pid))
        until(lambda: all(map(is_gone, pids)), "all of them to end")


@pytest.mark.parametrize("reaped", [False, True])
def test_the_group_is_killed_also_where_its_leader_has_ended(leader, reaped):
    with leader("deaf") as (process, pids):
        ticks = start_ticks(process.pid)
        process.kill()
        until(lambda: is_gone(process.pid), "its end")
        if reaped:
            process.wait()
        assert not is_gone(pids[1])
        descendants.kill_group(process.pid, ticks)
        until(lambda: is_gone(pids[1]), "the end of what it started")


def test_a_group_that_is_another_processs_by_now_is_left_alone(leader):
    with leader("deaf") as (process, pids):
        descendants.kill_group(process.pid, start_ticks(process.pid) - 1)
        descendants.kill_group(os.getpid(), start_ticks() - 1)
        assert not any(map(is_gone, pids))
        end(process)


def test_no_process_at_all_is_not_the_callers_own_group():
    code = "from mempressure.package_process.descendants import kill_group; kill_group(0, 0); print('lives')"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, stdout=subprocess.PIPE, start_new_session=True, check=False).stdout == b"lives\n"


def test_a_tree_is_read_from_proc(proc):
    proc.process(7, pss_kb=3000, private_kb=2000)
    proc.process(8, pss_kb=1000, private_kb=500)
    proc.write("7/task/7/children", "8 ")
    proc.write("7/task/70/children", "9 ")
    proc.write("8/task/8/children", "10 7 ")  # no circle, whatever is in it
    assert descendants.tree(7, proc=proc.path) == [7, 8, 9, 10] or descendants.tree(7, proc=proc.path) == [7, 9, 8, 10]
    private, proportional = descendants.memory_of_tree(7, proc=proc.path)  # 9 and 10 have ended
    assert proportional == 4000 << 10
    assert private >= 2500 << 10


def test_a_tree_without_the_kernels_help_is_the_process_itself(proc):
    proc.process(7)
    assert descendants.tree(7, proc=proc.path) == [7]
    assert descendants.memory_of_tree(7, proc=proc.path)[0] == process_memory(7, proc=proc.path).private
    with pytest.raises(ProcessLookupError):
        descendants.memory_of_tree(8, proc=proc.path)


def test_memory_shared_with_forks_is_counted_once():
    code = "import os, sys; held = b'x' * (64 << 20); os.fork(); os.fork(); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for _ in range(4):
            process.stdout.readline()
        assert len(descendants.tree(process.pid)) == 4
        private, proportional = descendants.memory_of_tree(process.pid)
        assert 64 << 20 < private < 90 << 20
        assert 64 << 20 < proportional < 90 << 20
        assert process_memory(process.pid).private < 20 << 20  # what it alone would give back
