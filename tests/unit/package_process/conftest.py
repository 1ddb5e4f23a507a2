"""Package processes with a program for tests: what an expression gives in one, and in its worker."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mempressure.package_process import identity
from tests.support.programs import package_program

ROOT = Path(__file__).resolve().parents[3]
WORKER = """
import json, os, subprocess, sys
sys.path.insert(0, {home!r})
from mempressure.package_process import interpreter
sys.path.remove({home!r})
{before}
declared = [interpreter.declared_path()]
{after}
done = subprocess.run(
    interpreter.command([{packages!r}, {expression!r}]), input=json.dumps(interpreter.handed_over(declared)),
    env=interpreter.environment(), stdout=subprocess.PIPE, text=True,
)
sys.path[:] = interpreter.declared_path()
print(json.dumps([json.loads(done.stdout or "null"), {expression}, done.args]))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with mempressure as it is, but for the program of a package process."""
    folder = tmp_path_factory.mktemp("home")
    inside = folder / "mempressure" / "package_process"
    inside.mkdir(parents=True)
    for name in ("__init__.py", "errors.py"):
        shutil.copy(ROOT / "mempressure" / name, inside.parent)
    for name in ("__init__.py", "interpreter.py", "identity.py"):
        shutil.copy(ROOT / "mempressure" / "package_process" / name, inside)
    shutil.copy(package_program.__file__, inside / "program.py")
    return folder


@pytest.fixture
def ask(home):
    """A function that evaluates an expression in a package process and in its worker; it returns both, and the command.

    `flags` and `python` are the worker's; it runs `before` before its declaration, `after` between that and the start.
    """

    def ask(expression, *, flags=(), python=sys.executable, before="", after="", **options):
        packages = identity.argument(("pandas", "numpy"))
        code = WORKER.format(home=str(home), before=before, after=after, packages=packages, expression=expression)
        done = subprocess.run(
            [python, *flags, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60, **options
        )
        return json.loads(done.stdout)

    return ask
