"""Fails when a flag, a collector or an endpoint of the exporter is not in its documentation, or no longer exists."""

import argparse
from pathlib import Path

from mempressure_exporter.__main__ import argument_parser
from mempressure_exporter.collectors import COLLECTORS
from mempressure_exporter.http import endpoints

ROOT = Path(__file__).parents[2]


def documented(page, heading):
    """Return the first two cells of each row of the table under a heading, without their back quotes."""
    section = (ROOT / "docs" / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    return {row[1].strip(" `"): row[2].strip(" `") for row in rows}


def flag_of(action):
    *_, last = action.option_strings
    return last.replace("--no-", "--[no-]", 1)


def default_of(action):
    if action.default == argparse.SUPPRESS:
        return ""
    if action.default is None:  # a collector's: what holds where neither flag is given
        return "on"
    return "off" if action.default is False else str(action.default)


def test_the_documentation_lists_every_flag_with_its_default():
    actions = argument_parser()._actions
    assert documented("exporter.md", "Flags") == {flag_of(action): default_of(action) for action in actions}
    page = (ROOT / "docs" / "exporter.md").read_text()
    for choice in [choice for action in actions for choice in action.choices or ()]:
        assert f"`{choice}`" in page


def test_the_documentation_lists_every_collector_as_it_is():
    said = {name: text.removesuffix(".").lower() for name, text in documented("exporter.md", "Collectors").items()}
    assert said == {name: text.lower() for name, text in COLLECTORS.items()}


def test_the_documentation_lists_every_endpoint():
    table = endpoints(None, program="mempressure-exporter", telemetry_path="/metrics")
    assert documented("exporter.md", "Endpoints").keys() == table.keys()
