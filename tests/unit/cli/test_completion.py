"""Completion, as the real bash carries it out."""

import subprocess

import pytest

from mempressure.cli import argument_parser
from mempressure.cli.completion import run, script

ASK = """
source /dev/stdin <<< "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_mempressure
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words, folder="."):
    command = ["bash", "--norc", "-c", ASK, "bash", script(argument_parser()), "mempressure", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["st"], ["status"]),
        (["--v"], ["--version"]),
        (["status", "--w"], ["--watch"]),
        (["status", "--json", "--s"], ["--settings"]),
        (["thresholds", "s"], ["set"]),
        (["completion", ""], ["-h", "--help", "bash", "zsh"]),
        (["history", "--st"], []),
        (["nothing", "--h"], []),
    ],
)
def test_commands_and_flags_are_completed(words, expected):
    assert completed(*words) == expected


def test_every_command_is_completed():
    assert {"status", "packages", "unload", "thresholds", "history", "check"} <= set(completed(""))


def test_a_path_is_completed_with_what_is_there(tmp_path):
    (tmp_path / "my-token").touch()
    assert completed("unload", "pandas", "--token-file", "my", folder=tmp_path) == ["my-token"]


def test_zsh_reads_the_same_through_its_own_bridge_to_it(capsys):
    """Tried with zsh 5.9: `mempressure sta` and a tab, `status --w`, `thresholds s`."""
    parser = argument_parser()
    assert run(parser.parse_args(["completion", "bash"])) == 0
    assert capsys.readouterr().out == script(parser)
    assert run(parser.parse_args(["completion", "zsh"])) == 0
    assert capsys.readouterr().out == "autoload -U +X bashcompinit && bashcompinit\n" + script(parser)
