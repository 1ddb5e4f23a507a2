"""Generations: who shares one, whose code its processes run, and its removal."""

import fcntl
import marshal
import os
import time

import pytest

from mempressure.isolation.generation import Lock, join, key_of
from mempressure.protocol import files, slots
from tests.support.forking import in_child

SECOND = 1_000_000_000


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "processes"
    path.mkdir()
    return str(path)


@pytest.fixture
def joined(base):
    """Join a generation; all are left in the end."""
    made = []

    def joined(key="k", *, declared_at=None):
        made.append(join(base, key, declared_at=time.time_ns() if declared_at is None else declared_at))
        return made[-1]

    yield joined
    for generation in made:
        generation.leave()


@pytest.fixture
def process(tmp_path):
    """Put a process with this list of files into the slot of a generation, as which this one takes itself."""
    kept = []

    def process(generation, listed, *, number=0):
        def take():
            record = slots.take(generation.directory, number)
            record.ready_in = 1
            with open(files.path_of(generation.directory, number), "wb") as file:
                file.write(marshal.dumps(listed))
            os.close(ready[1])
            os.read(stop[0], 1)

        ready, stop = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(stop[1])
                take()
            finally:
                os._exit(0)
        os.close(ready[1])
        os.read(ready[0], 1)
        os.close(ready[0])
        kept.append((child, stop))

    yield process
    for child, stop in kept:
        for descriptor in stop:
            os.close(descriptor)
        os.waitpid(child, 0)


def key(**options):
    defaults = {"app": "shop", "paths": [("/a", "/b")], "own": False}
    return key_of(options.pop("name", "json"), options.pop("packages", ("json",)), **{**defaults, **options})


def test_the_key_is_the_same_for_the_same_and_another_for_anything_else(monkeypatch):
    first = key()
    assert key() == first
    others = [
        key(name="reports"),
        key(packages=("json", "csv")),
        key(app="other"),
        key(paths=[("/b", "/a")]),
        key(paths=[("/a", "/b"), ("/c",)]),
        key(own=True),
    ]
    monkeypatch.setenv("ANOTHER_VARIABLE", "1")
    others.append(key())
    monkeypatch.undo()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    others.append(key())
    assert len({first, *others}) == len(others) + 1
    monkeypatch.undo()
    in_child(lambda: _assert_another(first))


def _assert_another(first):
    assert key() != first  # another parent


def test_two_workers_join_the_same(joined):
    one, other = joined(), joined()
    assert one.directory == other.directory
    assert one.identity == os.path.basename(one.directory) == "k.1"
    assert joined("another").identity == "another.1"


def test_the_last_user_is_known_and_gets_it_alone(joined, base):
    one, other = joined(), joined()
    assert not one.is_last_user()
    one.leave()
    assert other.is_last_user()
    assert joined().directory != other.directory  # since it is being ended
    other.remove()
    assert os.path.basename(other.directory) not in os.listdir(base)


def test_what_has_no_user_is_removed_by_the_next_that_joins(joined, base):
    left = joined("left")
    left.leave()
    used = joined("used")
    joined("next")
    assert not os.path.exists(left.directory)
    assert os.path.exists(used.directory)


def test_a_generation_of_the_same_key_that_was_left_is_used_again(joined):
    joined().leave()
    assert joined().identity == "k.1"


def test_a_generation_that_is_being_removed_is_not_joined(joined, base, monkeypatch):
    """Its last worker has removed the file of users, and not yet the rest."""
    one = joined()
    assert one.is_last_user()
    os.unlink(f"{one.directory}/users")
    other = joined()
    assert other.directory != one.directory
    assert not os.path.exists(f"{one.directory}/users")
    assert other.is_ours()


def test_newer_code_gets_a_generation_of_its_own_and_older_code_keeps_its(joined, process, tmp_path):
    module = tmp_path / "module.py"
    module.write_text("a = 1\n")
    old = joined()
    process(old, {str(module): files.identity(str(module))})
    declared = time.time_ns()
    assert joined(declared_at=declared).directory == old.directory
    status = os.stat(module)
    while os.stat(module).st_ctime_ns <= status.st_ctime_ns:
        module.write_text("a = 22\n")
    changed = os.stat(module).st_ctime_ns
    new = joined(declared_at=changed + SECOND)
    assert new.identity == "k.2"
    assert joined(declared_at=changed - 1).directory == old.directory
    assert joined(declared_at=changed + SECOND).directory == new.directory


def test_it_is_not_ours_once_its_descriptors_or_its_directory_are_gone(joined):
    for lose in ("close", "replace", "remove", "other"):
        generation = joined(lose)
        assert generation.is_ours()
        if lose == "close":
            os.close(generation._life.number)
        elif lose == "replace":
            with open(os.devnull) as null:
                os.dup2(null.fileno(), generation._users.number)
        elif lose == "remove":
            generation.remove()
        else:
            os.rename(generation.directory, f"{generation.directory}.away")
            os.mkdir(generation.directory)
            open(f"{generation.directory}/users", "w").close()
        assert not generation.is_ours()
        if lose == "replace":
            os.close(generation._users.number)


def test_leaving_what_others_have_closed_closes_nothing_of_others(joined, tmp_path):
    generation = joined()
    with open(slots.slot_path(generation.directory, 0), "wb") as file:
        file.truncate(4096)
    assert generation.record(0).pid == 0
    number = generation._life.number
    os.close(number)
    with open(tmp_path / "mine", "w") as mine:
        os.dup2(mine.fileno(), number)
    generation.leave()
    os.write(number, b"x")
    os.close(number)


def test_a_lock_is_one_threads_and_released_also_for_children(base):
    path = f"{base}/lock"
    lock = Lock.taken(path)
    assert Lock.taken(path) is None
    began = time.monotonic()
    assert Lock.taken(path, deadline=began + 0.05) is None
    assert time.monotonic() - began >= 0.05

    def child():
        other = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    in_child(child)  # whose end releases nothing
    assert Lock.taken(path) is None
    lock.release()
    again = Lock.taken(path)
    again.release()


def test_a_forked_child_keeps_neither_a_generation_nor_a_lock(joined, base):
    generation, lock = joined(), Lock.taken(f"{base}/other")

    def child():
        assert not generation._life.is_ours()
        assert not lock._descriptor.is_ours()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(generation._users.number)

    in_child(child)
    assert generation.is_ours()
    lock.release()


def test_others_that_hold_the_lock_for_too_long_are_named(base):
    lock = Lock.taken(f"{base}/lock")
    with pytest.raises(TimeoutError, match=r"lock was held by others for 0\.05 s"):
        join(base, "k", declared_at=0, lock_seconds=0.05)
    lock.release()


def test_what_cannot_be_made_leaves_nothing(base, monkeypatch):
    def no_fifo(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "mkfifo", no_fifo)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space"):
        join(base, "k", declared_at=0)
    assert os.listdir(base) == ["lock"]
    assert len(os.listdir("/proc/self/fd")) == before
