import sys
from pathlib import Path

import pytest

from benchmarks.services import ways
from benchmarks.services.applications import Site, applications

SITE = Site(8000, Path("/project"))


@pytest.mark.parametrize(
    ("way", "words"), [("managed", ["--manage"]), ("shared", ["--manage", "--share"]), ("plain", None)]
)
def test_mempressure_goes_before_the_command_where_it_manages(way, words):
    expected = [] if words is None else [sys.executable, "-m", "mempressure", "run", *words, "--"]
    assert ways.command(way, ["gunicorn", "app"]) == [*expected, "gunicorn", "app"]


def test_mempressure_has_a_budget_and_directories_of_its_own_where_it_manages():
    settings = ways.environment("managed", "app", Path("/own"), budget=1000)
    assert settings["MEMPRESSURE_BUDGET"] == "1000"
    assert {value for name, value in settings.items() if name.endswith("_DIR")} == {
        f"/own/{folder}" for folder in ("run", "state", "cache")
    }
    assert ways.environment("preloaded", "app", Path("/own"), budget=1000) == {}


@pytest.mark.parametrize("application", applications(), ids=lambda application: application.name)
def test_every_application_runs_in_the_ways_that_are_told_and_adds_its_options(application):
    assert set(application.options) <= set(ways.WAYS)
    assert {"plain", "own best", "managed", "shared"} <= set(application.options)
    plain = application.command(SITE, "plain")
    for way, words in application.options.items():
        assert application.command(SITE, way) == [*plain, *words]


@pytest.mark.parametrize("application", applications(), ids=lambda application: application.name)
def test_every_application_has_two_workers(application):
    words = application.command(SITE, "plain")
    assert "2" in [words[place + 1] for place, word in enumerate(words) if word in ("--workers", "--concurrency")]
