import os
import signal
import subprocess
import sys

import pytest

from mempressure.config.lock_file import LockFile
from tests.support.forking import in_child
from tests.support.waiting import until

HOLDER = """
import sys
from pathlib import Path
from mempressure.config.lock_file import LockFile
lock = LockFile(Path(sys.argv[1]))
assert lock.take()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "one.lock"


@pytest.fixture
def lock(path):
    lock = LockFile(path)
    yield lock
    lock.release()


def test_one_holds_it_until_it_lets_go(path, lock):
    other = LockFile(path)
    assert lock.take()
    assert lock.take()
    assert not other.take()
    lock.release()
    assert other.take()
    assert not lock.take()
    other.release()
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_is_free_again_once_its_holder_was_killed(path, lock):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        assert not lock.take()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert lock.take()


def test_a_removed_file_is_held_by_nobody(path, lock):
    assert lock.take()
    path.unlink()
    other = LockFile(path)
    assert other.take()
    assert not lock.take()
    other.release()
    assert lock.take()


def test_a_forked_child_that_forgets_leaves_it_to_its_parent(path, lock):
    assert lock.take()

    def child():
        lock.forget()
        assert not LockFile(path).take()

    in_child(child)
    assert lock.take()


def test_a_forked_child_that_lives_on_does_not_hold_it(path, lock):
    """The parent's end is what frees it, as it is without the child."""
    assert lock.take()
    child = os.fork()
    if child == 0:
        lock.forget()
        signal.pause()
        os._exit(0)
    try:
        held = lock._descriptor  # what the kernel closes at the parent's end
        lock._descriptor = None
        os.close(held)
        until(lambda: LockFile(path).take(), "the lock, once the child has forgotten it")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_link_is_not_followed(path, lock, tmp_path):
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(OSError, match="symbolic links"):
        lock.take()
    assert not (tmp_path / "elsewhere").exists()
