import copy
import json

import pytest

from benchmarks.report import BEGIN, END, SERVICES_BEGIN, SERVICES_END, markdown, readme, sharing
from benchmarks.targets import missed
from stack.engines import ROOT

RESULTS = json.loads((ROOT / "benchmarks" / "results.json").read_text())


def test_the_page_and_the_readme_are_what_the_results_say():
    assert (ROOT / "docs" / "benchmarks.md").read_text() == markdown(RESULTS)
    text = (ROOT / "README.md").read_text()
    assert readme(text, RESULTS) == text
    text = (ROOT / "docs" / "sharing.md").read_text()
    assert sharing(text, RESULTS) == text


def test_the_page_on_sharing_has_the_table_of_services():
    services = {**RESULTS["reaction"], "figures": {"tables": [{"title": "Memory", "columns": ["a"], "rows": [["1"]]}]}}
    text = sharing(f"before\n{SERVICES_BEGIN}\nSTALE\n{SERVICES_END}\nafter\n", {"services": services})
    assert text.startswith(f"before\n{SERVICES_BEGIN}\nMemory:\n\n| a |\n| --- |\n| 1 |\n")
    assert text.endswith(f"{SERVICES_END}\nafter\n")
    assert "STALE" not in text
    assert sharing(text, {}) == f"before\n{SERVICES_BEGIN}\n{SERVICES_END}\nafter\n"
    with pytest.raises(ValueError, match=r"docs/sharing.md has no <!-- services: begin -->"):
        sharing("nothing", {})


def test_figures_replace_the_old_ones_and_nothing_else():
    text = readme(f"before\n{BEGIN}\nSTALE\n{END}\nafter\n", RESULTS)
    assert text.startswith(f"before\n{BEGIN}\n| figure | measured | beside it |\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "STALE" not in text


def headlines(results):
    text = readme(f"{BEGIN}{END}", results)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows[2:]}, text


def changed(name, change):
    results = copy.deepcopy(RESULTS)
    change(results[name]["figures"])
    return results


def test_the_headlines_are_those_of_the_results():
    def fail_one(figures):
        (row,) = (row for row in figures["tables"][0]["rows"] if row[0] == "stop")
        row[figures["tables"][0]["columns"].index("failed")] = "7"

    def worst(figures):
        (target,) = (target for target in figures["targets"] if target["what"].startswith("stop: share"))
        target["measured"] = "12.5 %"

    def kill_one(figures):
        (row,) = (row for row in figures["tables"][0]["rows"] if row[0] == "actuator")
        row[figures["tables"][0]["columns"].index("killed by the kernel")] = "3"

    def slow(figures):
        table = figures["tables"][0]
        (row,) = (row for row in table["rows"] if row[:2] == ["1,000", "mempressure"])
        row[table["columns"].index("p50, ms")] = "99.00"

    def measured(results, words):
        (cells,) = (cells for name, cells in headlines(results)[0].items() if words in name)
        return cells[0]

    assert measured(changed("load", fail_one), "failed or wrong").startswith("7 of ")
    assert measured(changed("packages", worst), "ending a package's process") == "12.5 %"
    assert measured(changed("hog", kill_one), "kernel killed") == "3"
    assert measured(changed("exporter", slow), "1,000 series").startswith("99.00 ms; ")


def test_headlines_name_the_dates_and_the_machines_and_leave_out_what_was_not_measured():
    results = changed("calls", lambda _: None)
    results["calls"]["date"] = "2031-01-02"
    results["calls"]["machine"]["cpu"] = "Another"
    rows, text = headlines(results)
    assert "to 2031-01-02: 2 cores of AMD EPYC; 2 cores of Another; " in text
    del results["hog"], results["load"]
    assert len(headlines(results)[0]) == len(rows) - 2


def test_headlines_say_how_many_promises_were_missed():
    assert f"{len(missed(RESULTS))} of " in headlines(RESULTS)[1]
    assert "All 1 promised figures are met" in headlines({"other": results_with(MET)["calls"]} | reaction())[1]


def reaction():
    return {"reaction": RESULTS["reaction"]}


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
