"""What residents measure of real memory, in a process whose heap holds nothing else."""

import json
import subprocess
import sys

import pytest

from stack.engines import ROOT


@pytest.fixture(scope="module")
def found():
    """What was measured, in MiB; each object has 48."""
    command = [sys.executable, "-m", "tests.support.programs.resident_memory"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("load", 48),
        ("unload", -48),
        ("plain", 48),
        ("cycle", 48),
        ("small cycle", 0),
        ("resident", 48),
        ("resident reclaimed", 48),
        ("cache", 96),
        ("cache reclaimed", 96),
    ],
)
def test_what_was_loaded_and_came_back(found, what, expected):
    assert found[what] == pytest.approx(expected, abs=4)
