"""A test run reads and writes nothing of its user, and says what it left behind."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from stack.engines import ROOT

PLUGINS = (
    "-p",
    "tests.support.plugins.own_directories",
    "-p",
    "tests.support.plugins.leftovers",
    "-p",
    "no:cacheprovider",
)
BY_DEFAULT = """
import os, subprocess, sys
from mempressure.config.configuration import SETTINGS, load_configuration
from mempressure.control.monitor import MemoryMonitor
from mempressure.verdicts.store import load_verdict

def test_what_is_used_by_default():
    configuration = load_configuration()
    assert set(map(configuration.origin, (setting.name for setting in SETTINGS))) <= {"default", *CHOSEN}
    assert not configuration.state_directory.exists()
    load_configuration(environ={})
    assert load_verdict("pandas") is None
    assert MemoryMonitor().thresholds.unload_packages == 0.8
    child = [sys.executable, "-m", "mempressure", "packages"]
    subprocess.run(child, check=True)

CHOSEN = {f"environment variable MEMPRESSURE_{name}_DIR" for name in ("RUNTIME", "STATE", "CACHE")}
"""


@pytest.fixture
def run(tmp_path):
    """Run one module of tests with the plugins in a directory of its own; its status and what it wrote."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "pytest.ini").touch()

    def run(text, **environ):
        (folder / "test_it.py").write_text(text)
        command = [sys.executable, "-m", "pytest", *PLUGINS, f"--rootdir={folder}", f"-c{folder / 'pytest.ini'}"]
        done = subprocess.run(
            [*command, folder / "test_it.py"],
            cwd=ROOT,
            env=os.environ | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def poisoned(tmp_path):
    """Variables that lead to a user's files of which each would be refused or show."""
    home = tmp_path / "user"
    files = {
        "mempressure.yml": "mempressure_no_such_key: 1\n",
        "state/settings.json": json.dumps({"thresholds": {"unload_packages": 0.123}}),
        "cache/pandas.json": "no verdict",
        f"runtime/{os.geteuid()}/1.state": "no state",
        ".cache/mempressure/pandas.json": "no verdict",
        ".config/matplotlib/matplotlibrc": "no setting",
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    yield {
        "HOME": str(home),
        "MEMPRESSURE_CONFIG": str(home / "mempressure.yml"),
        **{f"MEMPRESSURE_{name.upper()}_DIR": str(home / name) for name in ("state", "cache", "runtime")},
        "MEMPRESSURE_BUDGET": "no size",
        "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD": "2",
    }
    found = {str(path.relative_to(home)): path.read_text() for path in home.rglob("*") if path.is_file()}
    assert found == files


def test_nothing_of_the_user_is_read_or_written(run, poisoned):
    status, output = run(BY_DEFAULT, **poisoned)
    assert status == 0, output


def test_nothing_stays_in_the_temporary_directory(run, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    code = "def test_it(tmp_path):\n    (tmp_path / 'x').touch()\n    assert str(tmp_path).startswith({!r})\n"
    status, output = run(code.format(str(temporary)), TMPDIR=str(temporary))
    assert status == 0, output
    assert list(temporary.iterdir()) == []


OTHERS_DIRECTORIES = """
import os, subprocess, sys

def test_a_child_with_another_environment():
    subprocess.run([sys.executable, "-c", ""], env={"HOME": "/"})

def test_a_default_directory():
    os.listdir("/var/cache/mempressure")

def test_an_error_that_the_code_survives():
    try:
        open("/etc/mempressure/mempressure.yml")
    except AssertionError:
        pass
"""


def test_using_others_directories_fails_the_test(run):
    status, output = run(OTHERS_DIRECTORIES)
    assert status == 1, output
    assert f"{sys.executable} was started without TMPDIR, MEMPRESSURE_CONFIG, " in output
    assert "a test used /var/cache/mempressure, which is not the run's own" in output
    assert "2 failed, 1 passed, 1 error" in output
    teardown = output.partition("ERROR at teardown")[2]
    assert "/etc/mempressure/mempressure.yml, which is not the run's own" in teardown


LEFT_BEHIND = """
import subprocess, sys, tempfile

def test_leaves():
    tempfile.mkdtemp(prefix="forgotten-")
    subprocess.Popen(["sleep", "987"])
    # Its parent ends at once, so that the test's process has no such child.
    subprocess.run(["sh", "-c", "setsid sleep 876 >/dev/null 2>&1 &"])
"""


def test_what_a_module_leaves_behind_fails_it(run):
    status, output = run(LEFT_BEHIND)
    left = dict(re.findall(r"^process (\d+) \w+ (sleep \d+)$", output, re.MULTILINE))
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    assert status == 1, output
    assert sorted(left.values()) == ["sleep 876", "sleep 987"], output
    assert re.search(r"^file \S+/forgotten-", output, re.MULTILINE)


def test_a_file_left_in_the_work_tree_fails_the_run(run, tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path / "tree"], check=True)  # noqa: S607 -- wherever it is
    (tmp_path / "tree" / "there-before").touch()
    made = "(pathlib.Path(__file__).parent / {!r}).touch()"
    cache, result = made.format(".pytest_cache"), made.format("result.json")
    status, output = run(f"import pathlib\ndef test_it():\n    {cache}\n    {result}\n")
    assert status == 1
    assert re.findall("left behind in the work tree, or made there meanwhile: (.*)", output) == ["result.json"]
