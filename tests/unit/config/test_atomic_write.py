import os
import resource
import stat
import threading

import pytest

from mempressure.config.paths import atomic_write


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.json"


@pytest.fixture
def kept(path):
    path.write_bytes(b"before")
    yield
    assert path.read_bytes() == b"before"
    assert os.listdir(path.parent) == [path.name]


@pytest.fixture
def no_room_behind():
    """A function after which no file can get longer than it is told: the kernel then writes short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_what_was_asked_for_whatever_the_umask(path, set_umask, umask, mode):
    set_umask(umask)
    for data in (b"first", b"", b"second"):
        atomic_write(path, data, mode=mode)
        assert path.read_bytes() == data
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.listdir(path.parent) == [path.name]


def test_a_reader_keeps_the_file_that_it_opened(path):
    path.write_bytes(b"before")
    with open(path, "rb") as reader:
        atomic_write(path, b"after")
        assert reader.read() == b"before"


def test_a_name_without_a_directory_is_in_the_current_one(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    atomic_write(path.name, b"data")
    assert path.read_bytes() == b"data"


@pytest.mark.usefixtures("kept")
def test_a_write_that_is_cut_short_is_an_error(path, no_room_behind):
    no_room_behind(5)
    with pytest.raises(OSError, match="No space left on device"):
        atomic_write(path, b"too long")


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("call", ["fchmod", "write", "fsync", "replace"])
def test_a_failure_leaves_what_was_there_and_nothing_beside_it(path, monkeypatch, call):
    def fail(*_):
        raise OSError(5, "Input/output error")

    open_before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="Input/output error"):
        atomic_write(path, b"after")
    assert os.listdir("/proc/self/fd") == open_before


@pytest.mark.parametrize("made", [os.symlink, os.link])
def test_a_link_under_the_temporary_name_is_not_written_through(path, made):
    victim = path.with_name("victim")
    victim.write_bytes(b"precious")
    made(victim, path.with_name(f".{path.name}.{os.getpid()}.new"))
    atomic_write(path, b"data")
    assert victim.read_bytes() == b"precious"
    assert path.read_bytes() == b"data"
    assert sorted(os.listdir(path.parent)) == [path.name, victim.name]


def test_a_file_under_the_temporary_name_is_not_taken_over(path):
    # It would stay its owner's, who may hold it open.
    left = path.with_name(f".{path.name}.{os.getpid()}.new")
    with open(left, "wb") as other:
        atomic_write(path, b"data")
        other.write(b"falsified")
    assert path.read_bytes() == b"data"


def test_processes_that_write_at_once_do_not_mix(path, monkeypatch):
    own = threading.local()
    monkeypatch.setattr(os, "getpid", lambda: own.pid)
    contents = [bytes([65 + number]) * 100_000 for number in range(4)]

    def write(number):
        own.pid = number
        for _ in range(50):
            atomic_write(path, contents[number], sync=False)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert path.read_bytes() in contents
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.usefixtures("kept")
def test_a_file_that_is_there_stays_where_it_is_not_to_be_replaced(path):
    with pytest.raises(FileExistsError):
        atomic_write(path, b"after", replace=False)


def test_a_file_that_is_not_there_is_made_where_none_is_to_be_replaced(path):
    atomic_write(path, b"data", mode=0o600, replace=False)
    assert path.read_bytes() == b"data"
    assert path.stat().st_nlink == 1
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("sync", [True, False])
def test_file_and_directory_reach_the_disk_in_this_order(path, monkeypatch, sync):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(os.readlink(f"/proc/self/fd/{fd}")))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("replace"), replace(old, new)))
    atomic_write(path, b"data", sync=sync)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    assert calls == ([str(new), "replace", str(path.parent)] if sync else ["replace"])
