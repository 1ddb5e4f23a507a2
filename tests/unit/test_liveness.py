import os

from mempressure.liveness import is_alive, pid_namespace, remove_dead
from mempressure.state import UNKNOWN

NOW = 1e9
ELSEWHERE = "pid:[4026532999]"


def test_a_worker_that_never_sampled_elsewhere_is_not_alive(make_worker, proc):
    assert not is_alive(make_worker(pid_namespace=ELSEWHERE, sampled=UNKNOWN), proc=proc.path, now=NOW)


def test_behind_hidepid_freshness_decides(make_worker, proc, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr("mempressure.liveness.start_ticks", refuse)  # root, who runs this, is never refused
    assert is_alive(make_worker(sampled=NOW - 1), proc=proc.path, now=NOW)
    assert not is_alive(make_worker(sampled=NOW - 60), proc=proc.path, now=NOW)


def test_pid_namespace(proc, tmp_path):
    assert pid_namespace() == os.readlink("/proc/self/ns/pid")
    proc.namespace(ELSEWHERE)
    assert pid_namespace(proc=proc.path) == ELSEWHERE
    assert pid_namespace(proc=str(tmp_path)) == ""


def test_only_what_the_dead_left_is_removed(runtime_dir, publish_worker):
    own, away = os.getpid(), 1 << 22
    publish_worker(pid=own, start_ticks=1, pid_namespace=pid_namespace())  # whose pid this process has now
    publish_worker(pid=away, pid_namespace=ELSEWHERE)
    directory = runtime_dir / str(os.geteuid())
    (directory / f"{own}.sock").touch()
    (directory / "7.state").write_bytes(b"no state")
    remove_dead(directory)
    assert {path.name for path in directory.iterdir()} == {f"{away}.state", "7.state"}
