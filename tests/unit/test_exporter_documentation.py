"""Fails when a flag or an endpoint of the exporter is not in its documentation, or no longer exists."""

import argparse
from pathlib import Path

from mempressure_exporter.__main__ import argument_parser, pages

ROOT = Path(__file__).parents[2]


def documented(page, heading):
    """Return the first two cells of each row of the table under a heading, without their back quotes."""
    section = (ROOT / "docs" / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    return {row[1].strip(" `"): row[2].strip(" `") for row in rows}


def test_the_documentation_lists_every_flag_with_its_default():
    actions = argument_parser()._actions
    defaults = {action.option_strings[-1]: action.default for action in actions}
    printed = {flag: "" if default == argparse.SUPPRESS else str(default) for flag, default in defaults.items()}
    assert documented("exporter.md", "Flags") == printed
    page = (ROOT / "docs" / "exporter.md").read_text()
    for choice in [choice for action in actions for choice in action.choices or ()]:
        assert f"`{choice}`" in page


def test_the_documentation_lists_every_endpoint():
    assert documented("exporter.md", "Endpoints").keys() == pages(None, telemetry_path="/metrics").keys()
