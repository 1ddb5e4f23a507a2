import argparse
import os
import time

import pytest

from mempressure.cli.options import moment, read_token, seconds
from mempressure.errors import ConfigurationError

TOKEN = "a-token-of-sixteen"  # noqa: S105 -- of no server


@pytest.mark.parametrize(("text", "expected"), [("0.1", 0.1), ("2", 2.0), ("86400", 86400.0)])
def test_seconds_from_a_tenth_to_a_day_are_taken(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0.09", "-1", "86401", "nan", "inf", "1 s", "x" * 1000])
def test_others_are_refused_by_name(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"cannot be used; send seconds from 0\.1 to 86400") as refused:
        seconds(text)
    assert len(str(refused.value)) < 120


@pytest.mark.parametrize(("text", "ago"), [("0s", 0), ("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604800)])
def test_so_long_ago_is_a_time(text, ago):
    assert moment(text) == pytest.approx(time.time() - ago, abs=5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2026-11-22T20:15:00+00:00", 1795378500.0), ("2026-11-22T20:15+01:00", 1795374900.0), ("999999999d", 0.0)],
)
def test_a_date_is_a_time(text, expected):
    assert moment(text) == expected


def test_a_date_without_a_zone_is_meant_here():
    now = time.time()
    assert moment(time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now))) == int(now)


@pytest.mark.parametrize("text", ["", "yesterday", "5", "-5m", "1w", "9" * 12 + "d", "0001-01-01", "x" * 1000])
def test_what_is_no_time_is_refused_by_name(text):
    with pytest.raises(argparse.ArgumentTypeError, match="cannot be used; send how long ago") as refused:
        moment(text)
    assert len(str(refused.value)) < 200


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
