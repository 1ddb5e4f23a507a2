"""Package processes that several workers of an app share: who shares, and that one harms no other."""

import ast
import os
import shutil
import signal
import time

import pytest

from tests.support.servers.isolated_worker import ended, lives
from tests.support.waiting import until

ONE = "declare(processes=1)"


@pytest.fixture
def generations(tmp_path):
    """Return the directories of generations."""
    base = tmp_path / "runtime" / str(os.geteuid()) / "processes"
    return lambda: sorted(path.name for path in base.iterdir() if path.is_dir())


def test_workers_of_an_app_share_its_process(workers, generations):
    one, other = workers
    assert one("call('pid')") == other("call('pid')") == one("package.process_pids[0]")
    assert one("package.processes_id") == other("package.processes_id") == generations()[0]
    assert (one("package.loads"), other("package.loads")) == (1, 0)
    assert len(generations()) == 1


@pytest.mark.parametrize(
    "different",
    [
        {"environ": {"SOME_VARIABLE": "another"}},
        {"environ": {"PYTHONPATH": f"{os.getcwd()}:/another/path"}},
        {"flags": ("-X", "dev", "-W", "ignore")},
    ],
)
def test_workers_with_another_interpreter_environment_or_path_do_not(start_worker, different):
    assert start_worker()("call('pid')") != start_worker(**different)("call('pid')")


@pytest.mark.parametrize("options", ["name='csv'", "packages=('json', 'csv')", "app='other'", "processes='worker'"])
def test_other_packages_and_apps_do_not(workers, options):
    one, other = workers
    other(f"declare({options})")
    assert one("call('pid')") != other("call('pid')")


def test_two_servers_of_one_app_do_not(start_worker):
    # A shell between, which is another server's process to the worker.
    server = ("sh", "-c", '"$@"; exit $?', "server")
    assert start_worker()("call('pid')") != start_worker(before=server)("call('pid')")


def test_a_worker_killed_in_a_call_harms_no_other_workers_call(workers, tmp_path):
    one, other = workers
    for worker in workers:
        worker(ONE)
    pid = other("call('pid')")
    one.send(f"call('touch_then_wait', {str(tmp_path / 'begun')!r}, 60)")
    until((tmp_path / "begun").exists, "the call to begin")
    one.kill()
    # The body, for which nobody waits, does not keep the process: it is another one.
    assert other("call('square', 5)") == 25
    assert not lives(pid)
    assert other("package.process_deaths") == 0


def test_a_worker_killed_between_calls_leaves_its_process_to_the_others(workers):
    one, other = workers
    pid = one("call('pid')")
    assert other("call('pid')") == pid
    one.kill()
    assert other("[call('pid') for _ in range(20)]") == [pid] * 20


@pytest.mark.parametrize("function", ["touch_then_wait", "touch_then_hold_the_gil"])
def test_no_process_outlives_the_last_worker_by_a_tenth_of_a_second(workers, tmp_path, function):
    one, other = workers
    one.send(f"call({function!r}, {str(tmp_path / 'begun')!r}, 60)")
    until((tmp_path / "begun").exists, "the call to begin")
    pids = other("package.process_pids") or other("call('nothing') or package.process_pids")
    one.kill()
    assert all(map(lives, pids))
    other.process.kill()
    other.process.wait()
    assert ended(pids, seconds=0.1) == set(pids)


def test_what_a_process_has_started_ends_with_the_last_worker_too(start_worker):
    worker = start_worker()
    child = worker("call('leave_process_behind')")
    pids = [*worker("package.process_pids"), child]
    assert all(map(lives, pids))
    worker.process.kill()
    worker.process.wait()
    assert ended(pids, seconds=0.1) == set(pids)


def test_the_last_worker_to_end_in_order_runs_the_hooks(start_worker, tmp_path):
    environ = {"HOOK_FILE": str(tmp_path / "hook")}
    one, other = start_worker(environ=environ), start_worker(environ=environ)
    for worker in (one, other):
        worker("declare(on_unload=functions.hook)")
        pid = worker("call('pid')")
    assert one.end() == 0
    assert lives(pid)
    assert not (tmp_path / "hook").exists()
    assert other.end() == 0
    assert (tmp_path / "hook").read_text() == f"hook {pid}\n"
    assert not lives(pid)


def test_what_killed_workers_leave_is_removed_by_the_next(workers, start_worker, generations):
    workers[1]("declare(app='other')")
    for worker in workers:
        worker("call('nothing')")
    left = generations()
    assert len(left) == 2
    for worker in workers:
        worker.kill()
    third = start_worker()
    third("declare(app='third')")
    third("call('nothing')")
    assert generations() == [third("package.processes_id")]


def test_a_forked_child_of_a_worker_shares_with_its_own_siblings_only(start_worker):
    worker = start_worker()
    pid = worker("call('pid')")
    assert worker(f"forked(\"os._exit(0 if call('pid') != {pid} else 9)\")") == 0
    assert worker("call('pid')") == pid


def test_after_a_fork_that_python_is_not_told_of_the_next_call_works(start_worker, tmp_path):
    worker = start_worker()
    pid = worker("call('pid')")
    path = tmp_path / "child"
    worker(
        "run('''"
        "child = ctypes.CDLL(None).fork()\n"
        "if child == 0:\n"
        "    try:\n"
        f"        open({str(path) + '.part'!r}, 'w').write(repr((call('pid'), calls(5), package.loads)))\n"
        f"        os.rename({str(path) + '.part'!r}, {str(path)!r})\n"
        "    finally:\n"
        "        os._exit(0)\n"
        "''')"
    )
    theirs, wrong, loads = ast.literal_eval(
        until(lambda: path.exists() and path.read_text(), "the child's answer", seconds=60)
    )
    assert theirs not in {pid, worker.pid}
    assert (wrong, loads) == ([], 1)
    assert worker("call('pid')") == pid
    worker("os.waitpid(child, 0)[1]")


def test_a_child_that_was_forked_while_a_process_started_keeps_nothing_of_it(start_worker, tmp_path, monkeypatch):
    (tmp_path / "waiting_package.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'at')!r}, 'w').close()\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.005)\n"
    )
    worker = start_worker(environ={"PYTHONPATH": f"{os.getcwd()}:{tmp_path}"})
    worker("declare(name='waiting_package')")
    worker("later('pid')")
    until((tmp_path / "at").exists, "the import to begin")
    child = worker("run('child = os.fork()\\nif child == 0:\\n    import time\\n    time.sleep(60)') or child")
    (tmp_path / "go").touch()
    pid = worker("answer()")
    try:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not lives(pid), "the end of the process")
        # Where the child had a copy of the socket, this call would wait there for as long as the child lives.
        assert worker("call('square', 3)") == 9
        pids = worker("package.process_pids")
        worker.kill()
        assert ended(pids, seconds=0.1) == set(pids)
    finally:
        os.kill(child, signal.SIGKILL)


def test_closing_all_descriptors_between_calls_harms_no_call_and_no_file(workers, tmp_path):
    one, other = workers
    one(ONE)
    other(ONE)
    for _ in range(3):
        assert one("[call('square', n) for n in range(3)]") == [0, 1, 4]
        one("os.closerange(3, 400) or os.closerange(402, 2000)")
        # What is opened now has the numbers that were the library's.
        one(f"open_files({str(tmp_path)!r}, 60)")
        assert other("call('square', 4)") == 16
        assert one("calls(5, threads=4)") == []
        one("write_to_files('x')")
        assert {path.read_text() for path in tmp_path.glob("file*")} == {"x"}
    one("package.close()")
    one("write_to_files('y')")
    assert {path.read_text() for path in tmp_path.glob("file*")} == {"xy"}
    assert one("calls(3)") == []


@pytest.mark.parametrize("what", ["directory", "socket", "runtime"])
def test_files_that_somebody_removed_are_made_anew(start_worker, tmp_path, what):
    worker = start_worker()
    worker("call('nothing')")
    base = tmp_path / "runtime" / str(os.geteuid()) / "processes"
    (generation,) = (path for path in base.iterdir() if path.is_dir())
    if what == "socket":
        (generation / "socket").unlink()
    else:
        shutil.rmtree(generation if what == "directory" else tmp_path / "runtime")
    assert worker("calls(5, threads=8)") == []
    worker("package.unload()")
    assert worker("call('square', 3)") == 9
    worker("package.close()")
    assert worker("call('square', 3)") == 9


def test_workers_that_start_at_the_same_instant_share_one_process(start_worker):
    workers = [start_worker() for _ in range(4)]
    for number in range(25):
        for worker in workers:
            worker(f"declare(app='shop{number}', processes=1)")
        for worker in workers:
            worker.send("call('pid')")
        assert len({worker.receive() for worker in workers}) == 1
        assert sum(worker("package.loads") for worker in workers) == 1
        for worker in workers:
            worker.send("package.close()")
        for worker in workers:
            worker.receive()


def test_unloading_by_one_worker_fails_no_call_of_another(workers):
    one, other = workers
    one(ONE)
    other(ONE)
    other.send("calls(2000, threads=4)")
    unloads = 0
    deadline = time.monotonic() + 60
    while unloads < 40 and time.monotonic() < deadline:
        one("call('nothing')")
        unloads += one("package.unload()")[1] is None
    assert other.receive() == []
    assert unloads >= 5
    assert other("package.process_deaths") == one("package.process_deaths") == 0


def test_processes_of_each_worker_are_its_own_and_end_with_it(workers):
    one, other = workers
    for worker in workers:
        worker("declare(processes='worker')")
    first, second = one("call('pid')"), other("call('pid')")
    assert first != second
    one.process.kill()
    one.process.wait()
    assert ended([first], seconds=0.1) == {first}
    assert other("call('pid')") == second
