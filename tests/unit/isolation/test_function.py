"""Isolated functions: how they are declared and called, and what a call costs its worker in imports."""

import asyncio
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mempressure.errors import IsolationError
from tests.support.functions import isolated_functions as functions

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.usefixtures("no_process_left")


def test_it_looks_like_the_function(isolate):
    square = isolate(functions.square)
    assert square.__wrapped__ is functions.square
    assert (square.__name__, square.__module__) == ("square", functions.__name__)
    assert square.__wrapped__(3) == square(3) == 9


def test_it_pickles_by_name_as_functions_do(isolate):
    assert pickle.loads(pickle.dumps(functions.factorial)) is functions.factorial  # noqa: S301 - our own
    assert isolate(functions.many)(functions.factorial)[0][0] is functions.factorial


def test_recursion_runs_in_place():
    assert functions.factorial(20) == 2432902008176640000
    assert functions.recursive_package.loads == 1
    assert functions.submit_in_process(5) == 120


def test_a_package_process_starts_no_other():
    with pytest.raises(IsolationError, match=r"inside the package process of json.*call it in the worker"):
        functions.calls_another_package()


def test_submit_gives_a_future(package, isolate):
    assert isolate(functions.square).submit(7).result(timeout=10) == 49
    with pytest.raises(ZeroDivisionError):
        isolate(functions.raise_it).submit(ZeroDivisionError).result(timeout=10)


def test_a_future_can_be_awaited(isolate):
    async def main():
        return await asyncio.gather(*(asyncio.wrap_future(isolate(functions.square).submit(n)) for n in range(5)))

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


def test_a_future_can_be_cancelled_until_it_starts(isolate, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    first = isolate(functions.wait_for_file).submit(str(go))
    second = isolate(functions.append).submit(str(started), "never")
    assert second.cancel()
    go.touch()
    assert first.result(timeout=10) == "seen"
    isolate(functions.nothing).submit().result(timeout=10)
    assert not started.exists()


def run_program(path, *arguments):
    program = subprocess.run(
        [sys.executable, *arguments],
        cwd=path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return program.returncode, program.stdout, program.stderr


MAIN = """
from mempressure.isolation.function import IsolatedFunction, IsolatedPackage
def double(x):
    return 2 * x
double = IsolatedFunction(double, package=IsolatedPackage("json"))
if __name__ == "__main__":
    print(double(21))
"""


def test_a_function_of_the_main_script_says_to_move_it(tmp_path):
    (tmp_path / "script.py").write_text(MAIN)
    status, _, errors = run_program(tmp_path, "script.py")
    assert status == 1
    assert "IsolationError: double is defined in the main program" in errors
    assert "move it to a module" in errors


def test_a_main_module_with_a_name_of_its_own_is_imported_by_that(tmp_path):
    (tmp_path / "jobs.py").write_text(MAIN)
    assert run_program(tmp_path, "-m", "jobs") == (0, "42\n", "")


def test_a_packages_main_module_is_not_run_again(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__main__.py").write_text(MAIN)
    status, _, errors = run_program(tmp_path, "-m", "jobs")
    assert status == 1
    assert "main program" in errors


def test_parents_import_neither_multiprocessing_nor_ctypes_nor_futures():
    code = "import sys, mempressure.isolation.function; print(*sorted(sys.modules))"
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    modules = set(program.stdout.split())
    assert "mempressure.isolation.processes" in modules
    assert not modules & {"multiprocessing", "ctypes", "concurrent.futures", "logging", "asyncio", "json"}
