"""Every mechanism has its row in docs/concepts.md and its section in docs/unloading.md."""

import re
from pathlib import Path

from mempressure.act.mechanisms import mechanisms

DOCS = Path(__file__).parents[2] / "docs"


def undocumented(effects):
    """Return the mechanisms, given as effects by name, that the documentation does not have."""
    rows = dict(re.findall(r"^\| (\w+) \| ([^|]+) \|", (DOCS / "concepts.md").read_text(), re.MULTILINE))
    sections = re.findall(r"^## (\w+):", (DOCS / "unloading.md").read_text(), re.MULTILINE)
    return [
        name for name, effect in effects.items() if not rows.get(name, "-").startswith(effect) or name not in sections
    ]


def test_every_mechanism_is_documented():
    assert undocumented({each.name: each.effect for each in mechanisms()}) == []


def test_the_table_has_them_mildest_first():
    rows = re.findall(r"^\| (\w+) \|", (DOCS / "concepts.md").read_text(), re.MULTILINE)
    names = [each.name for each in mechanisms()]
    assert [row for row in rows if row in names] == names
