import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.errors import UnsafeDirectoryError
from mempressure.measure.memory_reading import MemoryReading
from mempressure.measure.pressure import MeasureError
from mempressure.measure.process import pid_namespace, start_ticks
from mempressure.measure.reading import UNKNOWN
from mempressure.state import node_reader
from mempressure.state.live_processes import LiveProcesses
from mempressure.state.liveness import FRESH_SECONDS
from mempressure.state.node import app_memory, proportional_bytes
from mempressure.state.node_reader import read_apps, read_node
from mempressure.state.reader import StateError
from mempressure.state.records import WorkerState
from tests.support.builders.package_states import isolated

MIB = 1 << 20
NOW = 1e9
ELSEWHERE = "pid:[4026532999]"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


@pytest.fixture
def read(runtime_dir, proc):
    """Read the node; with `problems` append there what is skipped, else fail on it."""

    def reading(problems=None, *, now=NOW):
        return read_node(
            runtime_dir,
            proc=proc.path,
            clock=lambda: now,
            on_problem=pytest.fail if problems is None else problems.append,
        )

    return reading


def test_the_host_and_its_apps(read, publish_worker, proc, runtime_dir):
    proc.process(101)
    proc.process(102)
    one = publish_worker(pid=101, proportional_bytes=10.0, packages=["pandas"])
    two = publish_worker(pid=102, proportional_bytes=20.0, packages=[isolated(size=5)])

    node = read()

    assert node.sampled == NOW
    assert node.host.total == 8 << 30
    assert list(node.apps) == ["shop"]
    shop = node.apps["shop"]
    assert (shop.name, shop.uid, shop.directory) == ("shop", os.geteuid(), runtime_dir / str(os.geteuid()))
    assert shop.workers == (one, two)
    assert shop.used_bytes == 35
    assert shop.memory is None
    assert node.memory("host") is node.host
    assert node.memory("app", "shop") is None
    assert node.memory("app", "unheard of") is None


def test_without_a_runtime_directory_there_is_the_host(tmp_path, proc):
    node = read_node(tmp_path / "absent", proc=proc.path, on_problem=pytest.fail)
    assert (dict(node.apps), node.host.available) == ({}, 4 << 30)


def test_a_host_that_cannot_be_measured_is_an_error(read, proc):
    proc.meminfo(MemTotal=None)
    with pytest.raises(MeasureError, match="has no MemTotal"):
        read()


def test_a_runtime_directory_open_to_others_is_an_error(read, runtime_dir):
    runtime_dir.chmod(0o777)
    with pytest.raises(UnsafeDirectoryError):
        read()


def test_dead_ended_and_recycled_pids_are_left_out(read, publish_worker, proc):
    proc.process(101, start_ticks=1000)
    proc.process(102, start_ticks=5555)  # another process has the pid now
    proc.process(103, start_ticks=1000, state="Z")
    for pid in (101, 102, 103, 104):
        publish_worker(pid=pid, start_ticks=1000)
    assert [worker.pid for worker in read().apps["shop"].workers] == [101]


def test_a_hung_worker_is_alive_at_any_age_of_its_state(read, publish_worker, proc):
    proc.process(101)
    publish_worker(pid=101, sampled=NOW - 3600)
    assert "shop" in read().apps


@pytest.mark.parametrize(
    ("age", "alive"),
    [(0, True), (FRESH_SECONDS - 0.1, True), (FRESH_SECONDS, False), (3600, False), (-1, True), (-3600, False)],
)
def test_another_container_s_worker_is_alive_while_its_state_is_fresh(read, publish_worker, proc, age, alive):
    proc.process(101)  # has nothing to do with that container's 101
    publish_worker(pid=101, pid_namespace=ELSEWHERE, start_ticks=77, sampled=NOW - age)
    assert ("shop" in read().apps) is alive


@as_root
def test_an_app_s_name_belongs_to_one_user_the_lowest_uid(read, publish_worker, proc):
    for pid in (101, 102, 103):
        proc.process(pid)
    publish_worker(pid=101, uid=1000)
    publish_worker(pid=102, uid=33)
    publish_worker(pid=103, uid=1000, app="other")
    problems = []

    apps = read(problems).apps

    assert {name: app.uid for name, app in apps.items()} == {"shop": 33, "other": 1000}
    assert [worker.pid for worker in apps["shop"].workers] == [102]
    assert [str(problem) for problem in problems] == [
        "app 'shop' of uid 1000 is ignored: the name belongs to uid 33; set another MEMPRESSURE_APP for one of them"
    ]


def test_bad_files_are_reported_and_the_others_are_read(read, publish_worker, proc, runtime_dir):
    proc.process(101)
    publish_worker(pid=101)
    own = runtime_dir / str(os.geteuid())
    (own / "1.state").write_bytes(b"garbage")
    (own / "2.state").symlink_to(own / "101.state")
    (own / "3.state").symlink_to("/nowhere")
    os.mkfifo(own / "4.state")
    (own / "5.state").write_bytes(b"MPSTATE4" + bytes(4) + (100_000).to_bytes(4, "little") + bytes(8) + b"[" * 100_000)
    problems = []

    assert list(read(problems).apps) == ["shop"]
    assert all(isinstance(problem, StateError) for problem in problems)
    assert [str(problem).partition(": ")[0] for problem in problems] == [f"{own}/{n}.state" for n in range(1, 6)]


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("files", " has more than 2 state files; the others are left out"),
        ("seconds", ": its state files take more than 1 s of CPU to read; the others are left out"),
    ],
)
def test_the_files_of_one_user_are_bounded(read, publish_worker, proc, runtime_dir, monkeypatch, bound, message):
    if bound == "files":
        monkeypatch.setattr(node_reader, "MAX_FILES", 2)
    else:
        seconds = iter([5.0, 5.1, 6.0, 6.1])  # before the first, and before each
        monkeypatch.setattr(node_reader.time, "thread_time", lambda: next(seconds))
    for pid in (101, 102, 103):
        proc.process(pid)
        publish_worker(pid=pid)
    problems = []
    assert [worker.pid for worker in read(problems).apps["shop"].workers] == [101, 102]
    assert [str(problem) for problem in problems] == [f"{runtime_dir / str(os.geteuid())}{message}"]


@as_root
def test_a_file_of_another_user_is_reported(read, publish_worker, proc, runtime_dir):
    proc.process(101)
    publish_worker(pid=101)
    os.chown(runtime_dir / "0" / "101.state", 1000, -1)
    problems = []
    assert dict(read(problems).apps) == {}
    assert "not a regular file of uid 0" in str(problems[0])


@as_root
def test_a_user_s_directory_that_cannot_be_listed_hides_no_other(publish_worker, proc, tmp_path, monkeypatch):
    proc.process(101)
    publish_worker(pid=101, uid=1000)
    publish_worker(pid=102, uid=33)
    publish_worker(pid=103, uid=34, app="closed")
    (tmp_path / "runtime" / "33").chmod(0o700)
    (tmp_path / "runtime" / "34" / "103.state").chmod(0o600)
    problems = []

    # Above tmp_path all is closed to the user that reads here, so it gets there first.
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    os.seteuid(1000)
    try:
        node = read_node(Path("runtime"), proc="proc", clock=lambda: NOW, on_problem=problems.append)
    finally:
        os.seteuid(0)

    assert [worker.pid for worker in node.apps["shop"].workers] == [101]
    assert [str(problem) for problem in problems] == [
        "runtime/33 cannot be listed: Permission denied; chmod go+rx runtime/33",
        "runtime/34/103.state cannot be read: Permission denied",
    ]


@pytest.mark.parametrize(
    ("limit", "working_set", "budget", "expected"),
    [
        (UNKNOWN, UNKNOWN, 0, None),
        (UNKNOWN, 50.0, 0, None),
        (200.0, 50.0, 0, (200, 50)),  # the cgroup's working set against its limit
        (UNKNOWN, UNKNOWN, 100, (100, 35)),  # proportional memory against the budget
        (UNKNOWN, 50.0, 100, (100, 35)),
        (200.0, 50.0, 100, (100, 35)),  # a budget below the limit wins
        (200.0, 50.0, 199, (199, 35)),
        (200.0, 50.0, 200, (200, 50)),
        (200.0, 50.0, 201, (200, 50)),
        (200.0, UNKNOWN, 0, None),  # a limit without a usage
        (200.0, UNKNOWN, 300, (300, 35)),
    ],
)
def test_limit_budget_or_nothing(make_worker, limit, working_set, budget, expected):
    worker = make_worker(
        cgroup_limit_bytes=limit,
        cgroup_working_set_bytes=working_set,
        budget_bytes=budget,
        proportional_bytes=20.0,
        packages=[isolated(size=10)],
        supervisor_bytes=5.0,
    )
    reading = app_memory([worker])
    assert (reading and (reading.total, reading.used)) == expected


def test_no_workers_no_memory():
    assert app_memory([]) is None
    assert proportional_bytes([]) == 0


def test_above_its_budget_usage_passes_one(make_worker):
    worker = make_worker(budget_bytes=100, proportional_bytes=150.0)
    assert app_memory([worker]) == MemoryReading(total=100, available=-50)
    assert app_memory([worker]).usage == 1.5


def test_the_newest_cgroup_reading_and_the_largest_budget_count(make_worker):
    old = make_worker(sampled=NOW - 5, cgroup_limit_bytes=100.0, cgroup_working_set_bytes=10.0, budget_bytes=500)
    new = make_worker(sampled=NOW, cgroup_limit_bytes=200.0, cgroup_working_set_bytes=20.0)
    assert app_memory([old, new]) == app_memory([new, old]) == MemoryReading(total=200, available=180)
    assert app_memory([old.replaced(budget_bytes=150), new]).total == 150


def test_a_supervisor_counts_once(make_worker):
    shared = {"supervisor_pid": 50, "proportional_bytes": 10.0}
    first = make_worker(pid=101, sampled=NOW - 1, supervisor_bytes=7.0, **shared)
    second = make_worker(pid=102, sampled=NOW, supervisor_bytes=8.0, **shared)
    assert proportional_bytes([first, second]) == proportional_bytes([second, first]) == 28
    another = make_worker(pid=103, supervisor_pid=51, supervisor_bytes=9.0)
    elsewhere = make_worker(pid=104, supervisor_pid=50, supervisor_bytes=3.0, pid_namespace=ELSEWHERE)
    assert proportional_bytes([first, second, another, elsewhere]) == 40


def test_what_is_not_known_counts_nothing(make_worker):
    unknown = make_worker(proportional_bytes=UNKNOWN, packages=[isolated(size=UNKNOWN)], supervisor_bytes=UNKNOWN)
    assert proportional_bytes([unknown, make_worker(pid=102, supervisor_pid=9, proportional_bytes=5.0)]) == 5


amounts = st.integers(0, 1 << 40).map(float)


@given(
    st.lists(
        st.builds(
            WorkerState,
            app=st.just("shop"),
            pid=st.integers(1, 9),
            start_ticks=st.just(1),
            pid_namespace=st.just("n"),
            started=st.just(NOW),
            supervisor_pid=st.integers(0, 2),
            proportional_bytes=amounts,
            packages=st.lists(st.builds(isolated, size=amounts), max_size=1),
            supervisor_bytes=amounts,
            budget_bytes=st.integers(0, 1 << 40),
        )
    )
)
def test_an_app_uses_at_least_its_workers_and_at_most_everything(workers):
    own = sum(
        worker.proportional_bytes + sum(package.proportional_bytes for package in worker.packages) for worker in workers
    )
    used = proportional_bytes(workers)
    assert own <= used <= own + sum(worker.supervisor_bytes for worker in workers)
    reading = app_memory(workers)
    assert (reading is None) == (not any(worker.budget_bytes for worker in workers))
    assert reading is None or reading.used == used


def test_a_repeated_reader_sees_a_worker_end(runtime_dir, publish_worker):
    live = LiveProcesses()
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        ticks = start_ticks(process.pid)
        publish_worker(pid=process.pid, start_ticks=ticks, pid_namespace=pid_namespace())
        for lives in (True, True, False):
            if not lives:
                process.kill()
                process.wait()
            live.begin_round(now=NOW)
            apps = read_apps(runtime_dir, alive=live.is_alive, on_problem=pytest.fail)
            assert list(apps) == (["shop"] if lives else [])
