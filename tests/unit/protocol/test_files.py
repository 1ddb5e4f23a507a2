"""Lists of loaded files: whether a process has the code that a worker has."""

import os
import sys
import time
import types

import pytest

from mempressure.protocol import files
from mempressure.protocol.files import LoadedFiles

SECOND = 1_000_000_000


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that is loaded from a file, which changed a minute ago."""
    path = tmp_path / "some_module.py"
    path.write_text("a = 1\n")
    module = types.ModuleType("some_module")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "some_module", module)
    return module


@pytest.fixture
def noted(module, tmp_path, monkeypatch):
    """The list of a process that has loaded the module."""
    return note_later(tmp_path, monkeypatch)


def note_later(tmp_path, monkeypatch):
    """List the files of a process that began when they had been the same for a second."""
    later = time.time_ns() + SECOND
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: later)
        listed = LoadedFiles(str(tmp_path), 0)
        listed.note()
    return listed


def declared(tmp_path, *, at):
    return files.are_those_of(str(tmp_path), 0, declared_at=at)


def changed_to(path, text):
    """Change a file for sure: to another size, with a time of its own."""
    before = os.stat(path).st_ctime_ns
    while os.stat(path).st_ctime_ns == before:
        with open(path, "w") as file:
            file.write(text)
    return os.stat(path).st_ctime_ns


def test_files_that_stayed_the_same_are_those_of_a_worker_that_began_after_them(noted, tmp_path):
    assert declared(tmp_path, at=time.time_ns() + SECOND)


def test_a_change_is_seen_by_a_worker_that_began_after_it_only(noted, module, tmp_path):
    when = changed_to(module.__file__, "a = 22\n")
    assert not declared(tmp_path, at=when + SECOND)
    assert declared(tmp_path, at=when - 1)


def test_a_worker_that_began_before_the_change_is_not_run_by_the_new_code(noted, module, tmp_path):
    # The process has loaded what changed after the worker was declared.
    assert not declared(tmp_path, at=os.stat(module.__file__).st_ctime_ns - 1)


def test_a_file_that_was_removed_or_replaced_is_another(noted, module, tmp_path):
    os.unlink(module.__file__)
    assert not declared(tmp_path, at=time.time_ns() + SECOND)
    with open(module.__file__, "w") as file:
        file.write("a = 1\n")
    assert not declared(tmp_path, at=time.time_ns() + SECOND)


def test_a_file_that_changed_after_the_process_had_begun_is_not_trusted(module, tmp_path):
    listed = LoadedFiles(str(tmp_path), 0)
    when = changed_to(module.__file__, "b = 1\n")
    listed.note()  # what was imported may be what was there before, or after it
    assert not declared(tmp_path, at=when + SECOND)
    assert not declared(tmp_path, at=when - 1)


def test_a_module_of_an_archive_never_has_a_file(module, noted, tmp_path, monkeypatch):
    module.__file__ = "/some/archive.zip/some_module.py"
    note_later(tmp_path, monkeypatch)
    assert declared(tmp_path, at=time.time_ns() + SECOND)


def test_a_module_that_a_package_made_in_memory_never_has_a_file(module, tmp_path, monkeypatch):
    module.__file__ = "_ops.py"  # as that of torch.ops
    note_later(tmp_path, monkeypatch)
    assert declared(tmp_path, at=time.time_ns() + SECOND)


def test_the_list_is_written_when_there_are_more_modules(noted, tmp_path, monkeypatch):
    path = files.path_of(str(tmp_path), 0)
    before = os.stat(path).st_ino
    noted.note()
    assert os.stat(path).st_ino == before
    monkeypatch.setitem(sys.modules, "one_more", types.ModuleType("one_more"))
    noted.note()
    assert os.stat(path).st_ino != before
    assert sorted(os.listdir(tmp_path)) == ["files0", "some_module.py"]


@pytest.mark.parametrize("content", [None, b"", b"no list", b"\xe9\x01"])
def test_without_a_list_the_code_is_not_known(content, tmp_path):
    if content is not None:
        (tmp_path / "files0").write_bytes(content)
    assert not declared(tmp_path, at=time.time_ns())


def test_where_the_list_cannot_be_written_there_is_none(module, tmp_path):
    directory = tmp_path / "generation"
    directory.mkdir()
    listed = LoadedFiles(str(directory), 0)
    listed.note()
    assert (directory / "files0").exists()
    (directory / "files0").unlink()
    directory.rmdir()
    sys.modules["one_more_module"] = types.ModuleType("one_more_module")
    try:
        listed.note()
    finally:
        del sys.modules["one_more_module"]
    assert not directory.exists()
