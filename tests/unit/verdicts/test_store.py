import logging
import os
from dataclasses import replace

import pytest

from mempressure.log_once import LogOnce
from mempressure.verdicts import store
from mempressure.verdicts.store import MAX_FILE_BYTES, forget_verdict, load_rehearsed, load_verdict, store_verdict
from mempressure.verdicts.verdict import MechanismResult

REHEARSED = ("stop", "recycle")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def nothing_logged_yet(monkeypatch):
    monkeypatch.setattr(store, "_once", LogOnce(store.__name__))


@pytest.fixture
def kept(cache, make_verdict):
    verdict = make_verdict()
    store_verdict(verdict, cache=cache)
    return verdict


@pytest.fixture
def file(cache, kept):
    return cache / "verdicts" / "pandas.json"


def results(*works):
    return tuple(
        MechanismResult(mechanism=name, works=name in works, reason="" if name in works else "no") for name in REHEARSED
    )


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_stored_verdict_is_loaded_and_closed_to_others(cache, make_verdict, set_umask, umask):
    set_umask(umask)
    verdict = make_verdict()
    store_verdict(verdict, cache=cache)
    assert load_verdict("pandas", cache=cache) == verdict
    assert load_rehearsed("pandas", exercise="", cache=cache) == verdict
    (file,) = (cache / "verdicts").iterdir()
    assert [path.stat().st_mode & 0o777 for path in (cache, cache / "verdicts", file)] == [0o700, 0o700, 0o600]


def test_nothing_is_loaded_where_nothing_was_stored(cache, kept, caplog):
    for name in ("sympy", "pandas.core", "panda", "", "../verdicts/pandas", "*"):
        assert load_verdict(name, cache=cache) is None
    assert load_verdict("pandas", cache=cache / "none") is None
    assert load_rehearsed("pandas", exercise="a:b", cache=cache) is None
    assert load_rehearsed("pandas", exercise="", cache=cache / "none") is None
    assert not caplog.records


def test_the_cache_of_the_configuration_is_the_default(kept, cache, monkeypatch):
    monkeypatch.setenv("MEMPRESSURE_CACHE_DIR", str(cache))
    assert load_verdict("pandas") == kept


def test_a_verdict_replaces_the_one_before(cache, kept):
    newer = replace(kept, when=kept.when + 5)
    store_verdict(newer, cache=cache)
    assert load_verdict("pandas", cache=cache) == newer
    assert len(list((cache / "verdicts").iterdir())) == 1


def test_a_verdict_can_be_forgotten(cache, kept):
    for _ in range(2):
        forget_verdict("pandas", exercise="", cache=cache)
        assert load_verdict("pandas", cache=cache) is None


def test_of_several_exercises_the_most_cautious_verdict_counts(cache, make_verdict):
    def keep(exercise, *works, when):
        verdict = make_verdict(exercise=exercise, results=results(*works), when=when)
        store_verdict(verdict, cache=cache)
        return verdict

    keep("", "stop", "recycle", when=5.0)
    used = keep("reports:daily", "stop", "recycle", when=1.0)
    assert load_verdict("pandas", cache=cache) == used
    newer = keep("reports:yearly", "stop", "recycle", when=2.0)
    assert load_verdict("pandas", cache=cache) == newer
    cautious = keep("reports:monthly", "recycle", when=0.0)
    assert load_verdict("pandas", cache=cache) == cautious
    assert load_rehearsed("pandas", exercise="reports:daily", cache=cache) == used


def refused(cache, caplog, reason):
    """Look a verdict up twice: it must be absent both times, with one log record."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert load_verdict("pandas", cache=cache) is None
            assert load_rehearsed("pandas", exercise="", cache=cache) is None
    (record,) = caplog.records
    assert reason in record.getMessage()


@pytest.mark.parametrize("mode", [0o660, 0o602, 0o666])
def test_a_file_that_others_can_write_to_is_ignored(cache, file, caplog, mode):
    file.chmod(mode)
    refused(cache, caplog, f"can be written to by others (mode {mode:04o})")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["file", "directory", "cache"])
def test_what_belongs_to_another_user_is_ignored(cache, file, caplog, which):
    os.chown({"file": file, "directory": file.parent, "cache": cache}[which], 12345, -1)
    refused(cache, caplog, "belongs to uid 12345, not 0")


@pytest.mark.parametrize("which", ["directory", "cache"])
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_directory_that_others_can_write_to_is_ignored(cache, file, caplog, which, mode):
    {"directory": file.parent, "cache": cache}[which].chmod(mode)
    refused(cache, caplog, f"can be written to by others (mode {mode:04o})")


def test_a_link_is_ignored(cache, file, tmp_path, caplog):
    file.rename(tmp_path / "elsewhere.json")
    file.symlink_to(tmp_path / "elsewhere.json")
    refused(cache, caplog, "it is not a regular file")


@pytest.mark.parametrize("which", ["directory", "cache"])
def test_a_linked_directory_is_ignored(cache, file, tmp_path, caplog, which):
    folder = {"directory": file.parent, "cache": cache}[which]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    refused(cache, caplog, "is not a directory")


def test_a_pipe_is_ignored_and_blocks_nothing(cache, file, caplog):
    file.unlink()
    os.mkfifo(file, 0o600)
    refused(cache, caplog, "it is not a regular file")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 100_000, "recursion"),
        (b"1" * 10_000, "it is not JSON"),
        (b"{}", "has other keys"),
        (b"\x80\x04N.", "it is not JSON"),
        (b" " * (MAX_FILE_BYTES + 1), f"more than the {MAX_FILE_BYTES} bytes"),
    ],
)
def test_what_cannot_be_read_is_ignored(cache, file, caplog, content, reason):
    file.write_bytes(content)
    refused(cache, caplog, reason)


def test_a_file_of_exactly_the_size_allowed_is_read(cache, file, kept):
    data = file.read_bytes()
    file.write_bytes(data + b" " * (MAX_FILE_BYTES - len(data)))
    assert load_verdict("pandas", cache=cache) == kept


def test_a_file_with_the_verdict_on_another_package_is_ignored(cache, file, make_verdict, caplog):
    store_verdict(make_verdict(package="sympy"), cache=cache)
    os.replace(file.with_name("sympy.json"), file)
    refused(cache, caplog, "it is the verdict on 'sympy'")


def test_a_file_with_the_verdict_on_another_exercise_is_ignored(cache, file, make_verdict, caplog):
    store_verdict(make_verdict(exercise="a:b"), cache=cache)
    os.replace(file.with_name("pandas@a:b.json"), file)
    refused(cache, caplog, "it is the verdict on 'pandas' with exercise 'a:b'")


@pytest.mark.parametrize("change", [{"python": "old"}, {"distributions": {"pandas": "0.1"}}])
def test_a_stale_verdict_is_ignored_and_the_remedy_named(cache, kept, caplog, change):
    store_verdict(replace(kept, key=replace(kept.key, **change)), cache=cache)
    refused(cache, caplog, "run: mempressure check pandas")


def test_a_damaged_verdict_does_not_hide_another_exercises(cache, file, make_verdict, caplog):
    other = make_verdict(exercise="a:b")
    store_verdict(other, cache=cache)
    file.write_text("{")
    assert load_verdict("pandas", cache=cache) == other
    assert "it is not JSON" in caplog.text


def test_nothing_is_left_where_writing_fails(cache, kept, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        store_verdict(kept, cache=cache)
    assert [path.name for path in (cache / "verdicts").iterdir()] == ["pandas.json"]
