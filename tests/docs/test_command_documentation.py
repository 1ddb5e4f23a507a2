"""Fails when a subcommand, a flag or an exit status of the command line is not in its documentation, or is gone."""

import argparse
import re
from pathlib import Path

import pytest

from mempressure.cli import SUBCOMMANDS, argument_parser
from mempressure.control import actuator_client

DOCS = Path(__file__).parents[2] / "docs"
HOMES = dict.fromkeys(SUBCOMMANDS, "command-line.md") | {"check": "verdicts.md"}
"""The page that documents each subcommand, under a heading of its name."""


def parsers():
    (commands,) = [action for action in argument_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return commands.choices


def section(name):
    text = (DOCS / HOMES[name]).read_text()
    return text.split(f"\n## mempressure {name}\n")[1].split("\n## ")[0]


def test_every_subcommand_is_documented_and_no_other():
    assert parsers().keys() == SUBCOMMANDS.keys() == HOMES.keys()
    headings = set()
    for page in DOCS.glob("*.md"):
        headings.update(re.findall(r"^## mempressure ([a-z]+)$", page.read_text(), re.MULTILINE))
    assert headings == SUBCOMMANDS.keys()


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_flag_is_documented_with_its_default_and_no_other(name):
    documented = dict(re.findall(r"^\| `(--[\w-]+)` \| ([^|]*) \|", section(name), re.MULTILINE))
    flags = {
        action.option_strings[-1]: action.default
        for action in parsers()[name]._actions
        if action.option_strings and action.option_strings[-1] != "--help"
    }
    printed = {flag: f"`{default:g}`" if type(default) in (int, float) else "" for flag, default in flags.items()}
    assert {flag: default.strip() for flag, default in documented.items()} == printed


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_says_what_it_is_for(name):
    assert SUBCOMMANDS[name].__doc__.partition("\n")[0].endswith(".")
    assert f"`mempressure {name}" in section(name) or f"mempressure {name} " in section(name)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_exit_status_is_documented_and_in_the_help(name):
    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", section(name), re.MULTILINE)}
    helped = {int(number) for number in re.findall(r"^  (\d+) +", SUBCOMMANDS[name].EPILOG, re.MULTILINE)}
    assert documented - {130, 143} == helped
    assert 2 in helped
    modules = [*Path(SUBCOMMANDS[name].__file__).parent.glob("*.py"), Path(actuator_client.__file__)]
    sources = "".join(path.read_text() for path in modules)
    constants = {int(number) for number in re.findall(r"^[A-Z_]+ = (\d{1,3})$", sources, re.MULTILINE)}
    assert helped <= constants | {0}


def test_help_fits_a_terminal():
    for parser in (argument_parser(), *parsers().values()):
        assert max(map(len, parser.format_help().splitlines())) <= 80
