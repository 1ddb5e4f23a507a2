import os
import time

import pytest

from mempressure.config.paths import file_stem
from mempressure.measure.process import pid_namespace
from mempressure.measure.reading import UNKNOWN
from mempressure.state.liveness import STALE_SECONDS, is_alive, remove_dead

NOW = 1e9
ELSEWHERE = "pid:[4026532999]"


def test_a_worker_that_never_sampled_elsewhere_is_not_alive(make_worker, proc):
    assert not is_alive(make_worker(pid_namespace=ELSEWHERE, sampled=UNKNOWN), proc=proc.path, now=NOW)


def test_behind_hidepid_freshness_decides(make_worker, proc, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr("mempressure.state.liveness.start_ticks", refuse)  # root, who runs this, is never refused
    assert is_alive(make_worker(sampled=NOW - 1), proc=proc.path, now=NOW)
    assert not is_alive(make_worker(sampled=NOW - 60), proc=proc.path, now=NOW)


def test_pid_namespace(proc, tmp_path):
    assert pid_namespace() == os.readlink("/proc/self/ns/pid")
    proc.namespace(ELSEWHERE)
    assert pid_namespace(proc=proc.path) == ELSEWHERE
    assert pid_namespace(proc=str(tmp_path)) == ""


@pytest.fixture
def directory(runtime_dir):
    directory = runtime_dir / str(os.geteuid())
    directory.mkdir(exist_ok=True)
    return directory


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def test_only_files_of_dead_workers_are_removed(directory, publish_worker):
    own, away = os.getpid(), 1 << 22
    publish_worker(pid=own, start_ticks=1, pid_namespace=pid_namespace())  # whose pid this process has now
    publish_worker(pid=away, pid_namespace=ELSEWHERE)
    (directory / f"{own}.sock").touch()
    (directory / "7.state").write_bytes(b"no state")
    remove_dead(directory)
    assert {path.name for path in directory.iterdir()} == {f"{away}.state", "7.state"}


def test_files_of_workers_that_cannot_be_looked_up_are_removed_by_age(directory, publish_worker):
    stale = {"1-4026532999.sock", "3-4026532999.sock", "5-4026532999.new", ".7-4026532999.state.7.new"}
    stale |= {"9-4026532999.spare", f"{os.getpid()}.sock"}  # which its worker, if alive, creates again
    fresh = {"2-4026532999.sock", "4-4026532999.sock", "6-4026532999.new", "8-4026532999.spare"}
    for name in stale | fresh:
        (directory / name).touch()
    for name in stale:
        age(directory / name, STALE_SECONDS + 60)
    for pid in (1, 2):
        publish_worker(pid=pid, pid_namespace=ELSEWHERE)
        os.rename(directory / f"{pid}.state", directory / f"{pid}-4026532999.state")
    age(directory / "1-4026532999.state", STALE_SECONDS + 60)
    remove_dead(directory)
    assert {path.name for path in directory.iterdir()} == {*fresh, "2-4026532999.state"}


@pytest.mark.parametrize("name", ["{}.sock", "{}.new", ".{}.state.1.new", "{}.spare"])
def test_other_files_of_dead_workers_are_removed(directory, name):
    alive, gone = (name.format(file_stem(pid, pid_namespace())) for pid in (os.getpid(), 1 << 22))
    for each in (alive, gone):
        (directory / each).touch()
    remove_dead(directory)
    assert [path.name for path in directory.iterdir()] == [alive]


def test_the_note_of_a_live_arbiter_stays_at_any_age(directory):
    note = directory / f"{file_stem(os.getpid(), pid_namespace())}.spare"
    note.touch()
    age(note, STALE_SECONDS + 60)
    remove_dead(directory)
    assert note.exists()
