import json

import pytest

from benchmarks.report import BEGIN, END, markdown, readme
from stack.engines import ROOT

RESULTS = json.loads((ROOT / "benchmarks" / "results.json").read_text())


def test_the_page_and_the_readme_are_what_the_results_say():
    assert (ROOT / "docs" / "benchmarks.md").read_text() == markdown(RESULTS)
    text = (ROOT / "README.md").read_text()
    assert readme(text, RESULTS) == text


def test_figures_replace_the_old_ones_and_nothing_else():
    text = readme(f"before\n{BEGIN}\nSTALE\n{END}\nafter\n", RESULTS)
    assert text.startswith(f"before\n{BEGIN}\nFrom crossing")
    assert text.endswith(f"{END}\nafter\n")
    assert "STALE" not in text


def test_a_readme_without_their_place_is_refused():
    with pytest.raises(ValueError, match="has no <!-- figures: begin -->"):
        readme("nothing", RESULTS)


def results_with(*targets):
    figures = {
        "what": "calls into another process",
        "how": "Calls: a line that the heading says already.\n\nHow it is done.\n",
        "targets": list(targets),
        "notes": ["a note"],
        "tables": [{"title": "A table", "columns": ["", "b"], "rows": [["x | y", "1"]]}],
    }
    return {"reaction": RESULTS["reaction"], "calls": {**RESULTS["reaction"], "figures": figures}}


MET = {"what": "call", "target": "at most 100 us", "measured": "42 us", "met": True}
MISSED = {"what": "start", "target": "at most 100 ms", "measured": "120 ms", "met": False}


def test_a_section_says_what_how_promised_and_measured():
    page = markdown(results_with(MET))
    assert "## Calls" in page
    assert "\nCalls into another process.\n\nHow it is done.\n" in page
    assert "| call | at most 100 us | 42 us | met |" in page
    assert "- a note" in page
    assert "A table:\n\n| | b |\n| --- | --- |\n| x \\| y | 1 |" in page


def test_a_missed_figure_is_told_at_the_top_and_marked_in_its_place():
    page = markdown(results_with(MET, MISSED))
    top, _, _ = page.partition("## Calls")
    assert "- calls: start: 120 ms, promised at most 100 ms" in top
    assert "| start | at most 100 ms | 120 ms | **missed** |" in page
    assert "**missed**" not in markdown(results_with(MET))
