import os

import pytest

from mempressure.cli.actuator import read_token
from mempressure.errors import ConfigurationError

TOKEN = "a-token-of-sixteen"  # noqa: S105 -- of no server


def test_a_token_is_read_from_its_file(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "é" * 20])
def test_what_is_no_token_is_not_sent(tmp_path, text):
    (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigurationError, match=r"is no token.*; send --token-file"):
        read_token(tmp_path / "token")


def test_a_token_that_cannot_be_read_is_asked_for_on_a_terminal_only(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or TOKEN)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(ConfigurationError, match="No such file or directory; send --token-file"):
        read_token(tmp_path / "token")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        read_token(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigurationError, match="no regular file"):
        read_token(tmp_path / "fifo")
    assert asked == []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert read_token(tmp_path / "token") == TOKEN
    assert "No such file" in asked[0]
