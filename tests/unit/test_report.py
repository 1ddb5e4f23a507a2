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
