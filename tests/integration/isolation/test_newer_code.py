"""After an edit: a new worker's calls run the new code at once, and an old worker's the old, also a running one."""

import os

import pytest

from stack.engines import ROOT
from tests.support.waiting import until


@pytest.fixture
def start(tmp_path, start_worker):
    """Start a worker whose function is in a module that imports another, which is to be edited."""
    (tmp_path / "helper.py").write_text("VALUE = 'old'\n")
    (tmp_path / "jobs.py").write_text(
        "import os, time, helper\n"
        "def value():\n    return helper.VALUE, os.getpid()\n"
        "def slow(at, go):\n"
        "    open(at, 'w').close()\n"
        "    while not os.path.exists(go): time.sleep(0.005)\n"
        "    return helper.VALUE\n"
    )
    return lambda: start_worker(environ={"PYTHONPATH": f"{ROOT}:{tmp_path}"})


VALUE = "package.call('jobs', 'value')"


def test_each_worker_has_the_code_that_it_has_loaded(start, tmp_path):
    old = start()
    value, pid = old(VALUE)
    assert value == "old"
    assert start()(VALUE) == ["old", pid]
    old.send(f"package.call('jobs', 'slow', ({str(tmp_path / 'at')!r}, {str(tmp_path / 'go')!r}))")
    until((tmp_path / "at").exists, "the call to begin")
    (tmp_path / "helper.py").write_text("VALUE = 'newer'\n")
    new = start()
    value, theirs = new(VALUE)
    assert (value, theirs != pid) == ("newer", True)
    assert start()(VALUE) == ["newer", theirs]
    (tmp_path / "go").touch()
    assert old.receive() == "old"
    assert old(VALUE) == ["old", pid]
    assert new(VALUE) == ["newer", theirs]
    generations = {path.name for path in (tmp_path / "runtime" / str(os.geteuid()) / "processes").glob("*.*")}
    assert generations == {old("package.processes_id"), new("package.processes_id")}
