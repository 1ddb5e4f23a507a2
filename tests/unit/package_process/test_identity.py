"""What a process knows of itself: a package process, one of a pool of it, or a program of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from mempressure.package_process import identity

ROOT = Path(__file__).resolve().parents[3]
IDENTITY = "__import__('mempressure.package_process.identity', fromlist=['x'])"
LOKY = "__import__('joblib.externals.loky', fromlist=['x'])"
FUTURES = "__import__('concurrent.futures', fromlist=['x'])"
POOLS = {
    "spawn": "__import__('multiprocessing').get_context('spawn').Pool(1).apply",
    "forkserver": "__import__('multiprocessing').get_context('forkserver').Pool(1).apply",
    "fork": "__import__('multiprocessing').get_context('fork').Pool(1).apply",
    "loky": f"(lambda f: {LOKY}.get_reusable_executor(1).submit(f).result())",
    "executor": f"(lambda f: {FUTURES}.ProcessPoolExecutor(1).submit(f).result())",
    "pool of a pool": "__import__('tests.support.programs.pool_of_a_pool', fromlist=['x']).apply",
}


@pytest.fixture(autouse=True)
def not_asked_yet(monkeypatch):
    monkeypatch.setattr(identity, "_known", False)
    monkeypatch.setattr(identity, "_packages", None)


def test_this_process_is_no_package_process():
    assert identity.packages() is None


def test_a_process_becomes_one_by_being_told():
    identity.become(["pandas", "numpy"])
    assert identity.packages() == ("pandas", "numpy")


def test_a_package_process_is_one_from_its_first_line_on(ask):
    child, worker, _ = ask(f"{IDENTITY}.packages()")
    assert child == ["pandas", "numpy"]
    assert worker is None


@pytest.mark.parametrize("pool", POOLS)
def test_processes_of_its_pools_belong_to_it(ask, pool):
    child, worker, _ = ask(f"{POOLS[pool]}({IDENTITY}.packages)", before=f"sys.path.append({str(ROOT)!r})")
    assert child == ["pandas", "numpy"]
    assert worker is None


TOOL = f"""
import multiprocessing, sys
sys.path.append({str(ROOT)!r})
from mempressure.package_process import identity
if __name__ == "__main__":
    print(identity.packages())
    print(multiprocessing.get_context("spawn").Pool(1).apply(identity.packages))
"""


@pytest.mark.parametrize("in_file", [False, True])
def test_a_program_that_it_starts_is_one_of_its_own(ask, tmp_path, in_file):
    (tool := tmp_path / "tool.py").write_text(TOOL)
    command = [sys.executable, str(tool)] if in_file else [sys.executable, "-c", TOOL]
    child, worker, _ = ask(f"__import__('subprocess').run({command!r}, stdout=-1, text=True).stdout")
    assert child == worker == "None\nNone\n"


def test_a_worker_reads_and_imports_nothing_for_it():
    code = f"""
import os, sys
sys.path.append({str(ROOT)!r})
from mempressure.package_process import identity
before = set(sys.modules)
done = []
sys.addaudithook(lambda event, _: done.append(event))
assert identity.packages() is None
assert identity.packages() is None
assert set(sys.modules) == before and "open" not in done, done
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_ancestors_that_have_ended_name_nothing(proc, monkeypatch):
    monkeypatch.setattr(identity.os, "getppid", lambda: 300)
    assert identity._named_by_ancestors(proc=proc.path) is None
    spawn = "python\0-c\0from multiprocessing.forkserver import main; main(3)\0"
    proc.write("300/cmdline", spawn)
    proc.write("300/stat", "300 (python) S 301 0 0")
    assert identity._named_by_ancestors(proc=proc.path) is None
    proc.write("301/cmdline", "python\0-c\0import mempressure.package_process.program\0/home\0packages=a,b\0x\0")
    proc.write("301/stat", "301 (py (th)on) S 1 0 0")
    assert identity._named_by_ancestors(proc=proc.path) == ("a", "b")
    proc.write("301/cmdline", "python\0shop.py\0")
    assert identity._named_by_ancestors(proc=proc.path) is None
