import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.config.files import MAX_BYTES, parse_json, parse_yaml, read_text

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=8,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.yml"


def test_what_was_written_is_read(path):
    path.write_text("straße: 1\n")
    assert read_text(path) == read_text(str(path)) == "straße: 1\n"
    path.write_bytes(b"x" * MAX_BYTES)
    assert len(read_text(path)) == MAX_BYTES
    link = path.with_name("link")
    link.symlink_to(path)
    assert len(read_text(link)) == MAX_BYTES


def test_the_null_device_is_an_empty_file():
    assert read_text(os.devnull) == ""


def test_a_pipe_to_which_nobody_writes_is_not_waited_for(path):
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file"):
        read_text(path)


@pytest.mark.parametrize("kind", ["/dev/zero", "directory"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    with pytest.raises((ValueError, IsADirectoryError), match=r"not a regular file|directory"):
        read_text(tmp_path if kind == "directory" else kind)


@pytest.mark.parametrize(
    ("content", "told"), [(b"x" * (MAX_BYTES + 1), "more than 1048576 bytes"), (b"a: \xff", "not UTF-8")]
)
def test_what_cannot_be_read_is_told(path, content, told):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_text(path)


def test_a_file_that_is_not_there(path):
    with pytest.raises(FileNotFoundError):
        read_text(path)


@given(plain)
def test_both_read_what_json_says(content):
    import json

    text = json.dumps(content)
    assert parse_json(text) == content
    assert parse_yaml(text) == content


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 3}', '[{"b": {"a": 1, "a": 1}}]'])
def test_no_key_is_there_twice(parse, text):
    with pytest.raises(ValueError, match=r"^'a' appears twice"):
        parse(text)
    assert parse('[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
def test_what_is_nested_too_deep_is_told(parse):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse("[" * 100_000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("secret: [", "line 1, column 10"),
        ("secret: 'a", "line 1, column 11"),
        ("secret: 2026-99-99", "month must be in 1..12"),
        ("!!python/object/apply:os.system ['secret']", "could not determine a constructor"),
        ("secret: \x00", "ReaderError"),
    ],
)
def test_what_is_no_yaml_is_told_in_one_line_and_without_what_stands_there(text, told):
    with pytest.raises(ValueError, match=told) as caught:
        parse_yaml(text)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_without_pyyaml(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError):
        parse_yaml("a: 1")
