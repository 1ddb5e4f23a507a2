import os
import threading

import pytest

from mempressure.errors import ConfigurationError
from mempressure_actuator.api.token import load_token


def mode(path):
    return path.stat().st_mode & 0o7777


def test_a_token_is_made_at_the_first_start_for_its_owner_only(tmp_path, set_umask):
    set_umask(0)
    path = tmp_path / "state" / "token"
    token = load_token(path)
    text = path.read_text().strip()
    assert mode(path) == 0o600
    assert len(text) >= 43
    assert token.matches(text)
    assert os.listdir(path.parent) == ["token"]


def test_the_next_start_takes_the_same_one(tmp_path):
    load_token(tmp_path / "token")
    text = (tmp_path / "token").read_text()
    assert load_token(tmp_path / "token").matches(text.strip())
    assert (tmp_path / "token").read_text() == text


@pytest.mark.parametrize("wrong", ["", "x", " ", "é", "\udce9", "\0"])
def test_nothing_else_matches(tmp_path, wrong):
    token = load_token(tmp_path / "token")
    text = (tmp_path / "token").read_text().strip()
    assert not token.matches(wrong)
    assert not token.matches(text + wrong + "x")
    assert not token.matches(text[:-1])
    assert not token.matches(text.swapcase())


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o622, 0o644])
def test_a_file_that_others_can_use_is_refused_with_the_line_to_mend_it(tmp_path, bits):
    path = tmp_path / "token"
    load_token(path)
    path.chmod(bits)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}$"):
        load_token(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"short\n", b"with a space in it .....\n", b"\xff" * 40, b"x" * 5000])
def test_a_file_without_a_token_is_refused(tmp_path, content):
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="holds no token"):
        load_token(path)
    assert path.read_bytes() == content


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="token file"):
        load_token(tmp_path)


def test_what_a_killed_start_left_behind_is_no_obstacle(tmp_path):
    (tmp_path / f".token.{os.getpid()}.new").write_text("half")
    load_token(tmp_path / "token")
    assert os.listdir(tmp_path) == ["token"]


def test_a_token_does_not_show_itself(tmp_path):
    token = load_token(tmp_path / "token")
    text = (tmp_path / "token").read_text().strip()
    assert text not in repr(token)
    assert text not in str(token)
    assert text not in f"{token}"


def test_a_token_that_appears_meanwhile_stays(tmp_path):
    tokens = []
    barrier = threading.Barrier(2)

    def start():
        barrier.wait(10)
        tokens.append(load_token(tmp_path / "token"))

    # In one process both write the same temporary file: the loser reads the file of the winner.
    load_token(tmp_path / "token")
    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    text = (tmp_path / "token").read_text().strip()
    assert [token.matches(text) for token in tokens] == [True, True]


@pytest.mark.parametrize(("mode", "taken"), [(0o400, True), (0o440, True), (0o460, False), (0o444, False)])
def test_a_credential_of_systemd_shows_the_services_own_right_as_the_groups(tmp_path, monkeypatch, mode, taken):
    path = tmp_path / "token"
    path.write_text("x" * 43)
    path.chmod(mode)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    if taken:
        assert load_token(path).matches("x" * 43)
    else:
        with pytest.raises(ConfigurationError, match="chmod 600"):
            load_token(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path.parent))
    if mode != 0o400:
        with pytest.raises(ConfigurationError, match="chmod 600"):
            load_token(path)
