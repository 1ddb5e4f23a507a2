import os
import stat

import pytest

from mempressure_exporter import textfile


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_file_is_readable_by_all_whatever_the_umask(tmp_path, set_umask, umask):
    set_umask(umask)
    path = tmp_path / "mempressure.prom"
    for text in (b"first 1\n", b"second 2\n"):
        textfile.write(str(path), text)
        assert path.read_bytes() == text
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == [path.name]


def test_it_is_replaced_not_written_to(tmp_path):
    path = tmp_path / "mempressure.prom"
    path.write_text("old 1\n")
    with open(path) as reader:
        textfile.write(str(path), b"new 2\n")
        assert reader.read() == "old 1\n"


def test_the_old_file_stays_where_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "mempressure.prom"
    path.write_text("old 1\n")

    def full(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        textfile.write(str(path), b"new 2\n")
    assert path.read_text() == "old 1\n"
    assert os.listdir(tmp_path) == [path.name]


def test_a_symlink_under_its_temporary_name_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    (tmp_path / f".mempressure.prom.{os.getpid()}.new").symlink_to(elsewhere)
    textfile.write(str(tmp_path / "mempressure.prom"), b"new 2\n")
    assert elsewhere.read_text() == "precious"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("elsewhere", path)])
def test_other_than_a_regular_file_is_not_replaced(tmp_path, make):
    """As root `--output=/dev/null` would take the machine's null device away."""
    path = tmp_path / "mempressure.prom"
    make(path)
    kind = path.lstat().st_mode
    with pytest.raises(OSError, match="it is not a regular file"):
        textfile.write(str(path), b"new 2\n")
    assert path.lstat().st_mode == kind
    assert os.listdir(tmp_path) == [path.name]
