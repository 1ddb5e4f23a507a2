"""Pytest plugin: fails where a test module leaves processes, files or cgroups behind, and where a run leaves files.

A module is judged when its last test is over, by what was there before its first. The work tree is judged at the end
of the run, since another process' tests may be at it before.
"""

import gc
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stack.memory_cgroup import CONTROLLER
from tests.support.plugins import own_directories
from tests.support.plugins.own_directories import DIRECTORIES, OwnDirectories

SETTLE_SECONDS = 5.0
"""How long what was told to end, or lost its last reference, may take to be gone."""
CACHES = ("__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache")

WORK_TREE = pytest.StashKey[set[str]]()


@pytest.fixture(scope="module", autouse=True)
def nothing_left(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail where the module leaves something behind, or used directories that are not the run's own."""
    own = pytestconfig.stash[DIRECTORIES]
    before, refused = _present(own), len(own_directories.refused)
    yield
    if used := own_directories.refused[refused:]:
        pytest.fail("\n".join(used), pytrace=False)
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := _present(own) - before) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    if left:
        pytest.fail("\n".join(["left behind:", *sorted(left)]), pytrace=False)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Note what is in the work tree."""
    session.config.stash[WORK_TREE] = _work_tree(session.config.rootpath)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run where it left files in the work tree."""
    if hasattr(session.config, "workerinput"):
        return
    if left := sorted(_work_tree(session.config.rootpath) - session.config.stash[WORK_TREE]):
        told = f"left behind in the work tree, or made there meanwhile: {', '.join(left)}"
        session.config.get_terminal_writer().line(f"\n{told}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _present(own: OwnDirectories) -> set[str]:
    """Return what a test may leave: processes that inherited this run's directory, files in it, cgroups."""
    files = {
        f"file {path / name}"
        for path in (own.temporary, own.state, own.cache)
        if path.exists()
        for name in os.listdir(path)
    }
    # A user's directory there stays, with the lock of package processes, for the next worker.
    files |= {f"file {path}" for path in own.runtime.rglob("*") if not path.is_dir() and not _is_lock(path)}
    cgroups = {f"cgroup {path}" for path in CONTROLLER.glob(f"mempressure-test-{os.getpid()}*")}
    return {f"process {process}" for process in _processes(own)} | files | cgroups


def _is_lock(path: Path) -> bool:
    return (path.parent.name, path.name) == ("processes", "lock")


def _processes(own: OwnDirectories) -> set[str]:
    """Return descendants, and what was reparented when its parent ended but still carries our TMPDIR."""
    children = {process.pid for process in psutil.Process().children(recursive=True)}
    found = set()
    for process in psutil.process_iter():
        try:
            if process.pid in children or process.environ().get("TMPDIR") == str(own.temporary):
                found.add(f"{process.pid} {process.status()} {' '.join(process.cmdline())[:200]}")
        except psutil.Error:  # ended meanwhile, or somebody else's
            continue
    return found


def _work_tree(root: Path) -> set[str]:
    """Return the files in a checkout that git does not track, but for caches."""
    if not (root / ".git").exists():
        return set()
    command = ["git", "--no-optional-locks", "-c", "safe.directory=*", "status", "--porcelain", "--ignored"]
    lines = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    paths = {line[3:] for line in lines if line.startswith(("??", "!!"))}
    return {path for path in paths if not any(part in CACHES for part in Path(path).parts)}
