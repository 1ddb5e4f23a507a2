import fcntl
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
        os.close(lock._own.number)  # as the kernel does at the parent's end
        until(lambda: LockFile(path).take(), "the lock, once the child has forgotten it")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("ended", [LockFile.release, LockFile.forget, LockFile.take])
def test_a_file_that_has_its_number_by_now_is_neither_unlocked_nor_closed(path, lock, tmp_path, ended):
    assert lock.take()
    number = lock._own.number
    os.close(number)
    theirs = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)
    assert theirs == number
    fcntl.flock(theirs, fcntl.LOCK_EX)
    ended(lock)
    assert not LockFile(tmp_path / "theirs").take()
    os.close(theirs)


def test_a_lock_that_was_lost_with_its_descriptor_is_another_s_or_taken_again(path, lock):
    assert lock.take()
    os.close(lock._own.number)
    theirs = os.open(os.devnull, os.O_RDONLY)
    other = LockFile(path)
    assert other.take()
    assert not lock.take()
    other.release()
    assert lock.take()
    assert not other.take()
    os.close(theirs)


def test_a_link_is_not_followed(path, lock, tmp_path):
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(OSError, match="symbolic links"):
        lock.take()
    assert not (tmp_path / "elsewhere").exists()
