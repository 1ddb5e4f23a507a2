import os
import re
from pathlib import Path

import pytest

from mempressure.errors import ConfigurationError
from mempressure_actuator.custom.actions_file import load_actions
from mempressure_actuator.custom.definition import SIGNALS

WHOLE = """
actions:
  - name: page
    http:
      url: https://example.org/hook
      method: PUT
      headers: {Authorization: Bearer x}
  - name: drop
    level: high
    timeout: 5
    concurrency: 2
    cooldown: 30
    command: [/bin/echo, --all, "; rm -rf /"]
  - name: reload
    signal: {pid_file: /run/reload.pid, name: HUP}
"""
ONE = "actions: [{name: a, command: [/bin/true]}]"


@pytest.fixture
def write(tmp_path):
    def written(text, mode=0o600):
        path = tmp_path / "actions.yml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    tmp_path.chmod(0o755)
    return written


def test_a_file_with_every_kind(write):
    page, drop, reload = load_actions(write(WHOLE))
    assert (page.kind, page.http.method, page.http.headers) == ("http", "PUT", {"Authorization": "Bearer x"})
    assert (page.level, page.timeout, page.concurrency, page.cooldown) == ("emergency", 10.0, 1, 300.0)
    assert (drop.kind, drop.level, drop.timeout, drop.concurrency, drop.cooldown) == ("command", "high", 5.0, 2, 30.0)
    assert drop.command == ["/bin/echo", "--all", "; rm -rf /"]
    assert (reload.kind, reload.signal.name, reload.signal.pid_file) == ("signal", "HUP", "/run/reload.pid")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file cannot be used: expected `object`"),
        ("- a", "the file=.* cannot be used|the file cannot be used"),
        ("actions: 3", "actions=3 cannot be used"),
        ("actions: [{name: a, command: [/bin/true], tiemout: 3}]", "unknown field `tiemout`"),
        ("actions: [{name: a, command: [/bin/true], timeout: soon}]", r"actions\[0\]\.timeout='soon' cannot be used"),
        ("actions: [{name: a, command: [/bin/true], timeout: 0}]", r"actions\[0\]\.timeout=0 cannot be used.*>= 0\.1"),
        ("actions: [{name: a, command: [/bin/true], level: critical}]", r"actions\[0\]\.level='critical'"),
        ("actions: [{name: A B, command: [/bin/true]}]", r"actions\[0\]\.name='A B'"),
        ("actions: [{name: a, command: /bin/true}]", r"actions\[0\]\.command='/bin/true' cannot be used"),
        ("actions: [{name: a, command: []}]", r"actions\[0\]\.command=\[\]"),
        ("actions: [{name: a, command: [sh, -c, x]}]", r"actions\[0\]\.command\[0\]='sh' is not an absolute path"),
        ("actions: [{name: a, command: [/bin/nothing]}]", r"command\[0\]='/bin/nothing' is not an executable file"),
        ("actions: [{name: a}]", r"actions\[0\] \(a\) has none of http, command, signal; send exactly one"),
        (
            "actions: [{name: a, command: [/bin/true], signal: {pid_file: /p, name: HUP}}]",
            "has command and signal of",
        ),
        ("actions: [{name: a, http: {url: 'file:///etc/passwd'}}]", r"actions\[0\]\.http\.url='file:///etc/passwd'"),
        ("actions: [{name: a, http: {url: 'http://h/', method: GET}}]", r"actions\[0\]\.http\.method='GET'"),
        ('actions: [{name: a, http: {url: "http://h/", headers: {A: "x\\ny: z"}}}]', r"actions\[0\]\.http\.headers"),
        ("actions: [{name: a, signal: {pid_file: p, name: HUP}}]", r"actions\[0\]\.signal\.pid_file='p'"),
        ("actions: [{name: a, signal: {pid_file: /p, name: STOP}}]", r"actions\[0\]\.signal\.name='STOP'"),
        (ONE.replace("]}]", "]}, {name: a, command: [/bin/true]}]"), r"actions\[1\]\.name='a' is used already"),
        ("actions: [" + ", ".join(f"{{name: a{n}, command: [/bin/true]}}" for n in range(33)) + "]", "send 32 at most"),
        ("actions: [", "is not YAML"),
        ("actions: []\nactions: []", "is not YAML: 'actions' appears twice in line 2"),
        (b"\xff\xfe\xfa", "is not UTF-8"),
        (b"x" * ((1 << 20) + 1), "more than 1048576 bytes"),
        ("actions: !!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_what_cannot_be_used_is_named_by_file_key_and_value(write, text, words):
    path = write(text)
    with pytest.raises(ConfigurationError, match=words) as raised:
        load_actions(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_to_is_refused(write, mode):
    with pytest.raises(ConfigurationError, match=rf"can be written to by others \(mode {mode:04o}\); chmod go-w"):
        load_actions(write(ONE, mode))


def test_a_file_in_a_directory_that_others_can_write_to_is_refused(write, tmp_path):
    path = write(ONE)
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigurationError, match="can be written to by others"):
        load_actions(path)
    tmp_path.chmod(0o1777)
    assert len(load_actions(path)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away: needs root")
def test_another_users_file_is_refused(write):
    path = write(ONE)
    os.chown(path, 65534, -1)
    with pytest.raises(ConfigurationError, match="belongs to uid 65534"):
        load_actions(path)


def test_a_program_that_others_can_write_to_is_refused(write, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    with pytest.raises(ConfigurationError, match=r"command\[0\]: .*program can be written to by others"):
        load_actions(write(ONE.replace("/bin/true", str(program))))


@pytest.mark.parametrize("link", ["file", "directory"])
def test_a_link_that_others_can_replace_is_refused(tmp_path, write, link):
    """Otherwise a user who replaces the link after the check decides what runs as the actuator."""
    (tmp_path / "own").mkdir(mode=0o755)
    program = tmp_path / "own" / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "open").mkdir()
    named = tmp_path / "open" / "link"
    named.symlink_to("../own/program" if link == "file" else "../own")
    text = ONE.replace("/bin/true", str(named if link == "file" else named / "program"))
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigurationError, match=r"open can be written to by others \(mode 0777\)"):
        load_actions(write(text))
    (tmp_path / "open").chmod(0o1777)
    assert len(load_actions(write(text))) == 1
    if os.geteuid() == 0:
        os.lchown(named, 65534, -1)
        with pytest.raises(ConfigurationError, match="open/link belongs to uid 65534"):
            load_actions(write(text))


def test_a_directory_further_up_that_others_can_write_to_is_refused(tmp_path):
    folder = tmp_path / "open" / "closed"
    folder.mkdir(parents=True, mode=0o755)
    (folder / "actions.yml").write_text(ONE)
    assert len(load_actions(folder / "actions.yml")) == 1
    (tmp_path / "open").chmod(0o775)
    with pytest.raises(ConfigurationError, match=r"open can be written to by others \(mode 0775\)"):
        load_actions(folder / "actions.yml")


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop.yml").symlink_to("loop.yml")
    with pytest.raises(ConfigurationError, match="Too many levels"):
        load_actions(tmp_path / "loop.yml")


@pytest.mark.parametrize(
    "headers",
    ["{Authorization: 'Bearer secret-word}", "Bearer secret-word", "[Bearer secret-word]", "{A: {b: secret-word}}"],
)
def test_a_token_in_what_cannot_be_used_is_not_shown(write, headers):
    with pytest.raises(ConfigurationError) as raised:
        load_actions(write(f"actions:\n- name: a\n  http: {{url: 'http://h/', headers: {headers}}}\n"))
    assert "secret-word" not in str(raised.value)


def test_a_file_that_is_not_there_or_no_file(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        load_actions(tmp_path / "none.yml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load_actions(tmp_path)


def test_the_documented_example_can_be_loaded_and_names_every_signal(write):
    page = (Path(__file__).parents[4] / "docs" / "custom-actions.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    known = example.replace("/usr/local/bin/flush-cache", "/bin/true")
    assert {action.kind for action in load_actions(write(known))} == {"http", "command", "signal"}
    assert all(f"`{name}`" in page for name in SIGNALS)
