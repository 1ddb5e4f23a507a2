"""Completion, carried out by the real shells."""

import subprocess

import pytest

from mempressure.cli import SUBCOMMANDS, argument_parser
from mempressure.cli.completion import SHELLS, run, script
from stack.engines import find_program

ASK = """
source /dev/stdin <<< "$1"; shift
complete -p mempressure
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_mempressure
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words, folder="."):
    text = script(argument_parser(), "bash")
    command = ["bash", "--norc", "-c", ASK, "bash", text, "mempressure", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    registered, *found = done.stdout.split("\n")
    assert "-F _shtab_mempressure mempressure" in registered
    assert done.stderr == ""
    return "\n".join(found).split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["st"], ["status"]),
        (["--v"], ["--version"]),
        (["status", "--w"], ["--watch"]),
        (["status", "--json", "--s"], ["--settings"]),
        (["thresholds", "s"], ["set"]),
        (["completion", ""], ["bash", "zsh"]),
        (["completion", "--h"], ["--help"]),
        (["history", "--st"], []),
        (["nothing", "--w"], []),
    ],
)
def test_commands_and_options_are_completed(words, expected):
    assert completed(*words) == expected


def test_every_command_is_completed():
    assert set(completed("")) >= SUBCOMMANDS.keys()


def test_a_path_is_completed_with_what_is_there(tmp_path):
    (tmp_path / "my-token").touch()
    assert completed("unload", "pandas", "--token-file", "my", folder=tmp_path) == ["my-token"]


def test_zsh_reads_its_script_and_registers_it():
    zsh = find_program("zsh")
    if zsh is None:
        pytest.fail("zsh is not on this machine; run: make need-test-engines")
    register = 'compdef() { print -- registered "$@"; }; eval "$1"; print -l -- $_shtab_mempressure_status_options'
    command = [zsh, "-f", "-c", register, "zsh", script(argument_parser(), "zsh")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    registered, *options = done.stdout.splitlines()
    assert registered == "registered _shtab_mempressure -N mempressure"
    assert any(option.startswith("--watch") for option in options)
    assert any(option.startswith("--token-file") and option.endswith(":_files") for option in options)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_printed(shell, capsys):
    parser = argument_parser()
    assert run(parser.parse_args(["completion", shell])) == 0
    assert capsys.readouterr().out == script(argument_parser(), shell)
