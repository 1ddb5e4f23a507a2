"""A mechanism added in one module and one line is planned, ordered, measured, rehearsed, shown and documented."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mempressure.mechanisms import NAMES
from tests.docs.test_mechanisms import undocumented

ROOT = Path(__file__).parents[3]
TOY = ROOT / "tests/support/programs/toy_mechanism.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the parts of a copy of the library do with the mechanism "toy", which was added to it."""
    copy = tmp_path_factory.mktemp("copy")
    for package in ("mempressure", "actuator/mempressure_actuator", "exporter/mempressure_exporter"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, copy / Path(package).name, ignore=ignored)
    shutil.copy(TOY, copy / "mempressure/act/mechanisms/toy.py")
    registry = copy / "mempressure/mechanisms.py"
    registry.write_text(registry.read_text().replace('"release", "recycle"', '"release", "toy", "recycle"'))
    directories = {
        f"MEMPRESSURE_{name}_DIR": str(tmp_path_factory.mktemp(name.lower())) for name in ("RUNTIME", "STATE", "CACHE")
    }
    environ = {**os.environ, **directories, "PYTHONPATH": os.pathsep.join([str(copy), str(ROOT)])}
    command = [sys.executable, "-P", "-m", "tests.support.programs.toy_user"]
    done = subprocess.run(command, env=environ, cwd=copy, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["library"] == str(copy / "mempressure/__init__.py")
    return answer


def test_it_is_planned_in_its_place(found):
    assert found["planned"] == ["trim", "trim", "stop", "toy", "recycle"]


def test_it_is_ordered_and_what_it_gave_back_counted(found):
    assert found["ordered"] == [4096, 1]


def test_it_is_rehearsed_and_what_was_found_is_printed(found):
    assert found["rehearsed"] == [True, 1 << 20, 2]
    row = next(line.split() for line in found["report"].splitlines() if line.split()[:1] == ["toy"])
    assert row[:4] == ["toy", "yes", "1.0", "MiB"]


def test_it_is_in_metrics_api_command_line_and_settings(found):
    assert found["shown"] == {
        "metrics": True,
        "counters": True,
        "api": True,
        "command line": True,
        "settings": ["toy"],
    }


def test_it_is_missed_in_the_documentation():
    assert undocumented({**dict.fromkeys(NAMES, ""), "toy": "puts a package into the toy box"}) == ["toy"]
