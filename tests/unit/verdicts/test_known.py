import os
import subprocess
import sys

import pytest

from mempressure.verdicts.known import KnownVerdicts
from mempressure.verdicts.store import forget_verdict, store_verdict


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def mechanisms(known, *names):
    known.refresh()
    return [known.mechanism(name) for name in names]


def test_added_and_removed_verdicts_are_noticed(cache, make_verdict):
    known = KnownVerdicts(lambda: cache)
    assert mechanisms(known, "pandas") == [""]
    store_verdict(make_verdict(), cache=cache)
    assert mechanisms(known, "pandas", "sympy") == ["stop", ""]
    store_verdict(make_verdict(package="sympy"), cache=cache)
    os.utime(cache / "verdicts", ns=(1, 1))  # two changes within one tick of the file system's clock look alike
    assert mechanisms(known, "pandas", "sympy") == ["stop", "stop"]
    forget_verdict("pandas", exercise="", cache=cache)
    assert mechanisms(known, "pandas", "sympy") == ["", "stop"]


def test_a_file_is_read_once(cache, make_verdict, monkeypatch):
    known = KnownVerdicts(lambda: cache)
    store_verdict(make_verdict(), cache=cache)
    assert mechanisms(known, "pandas") == ["stop"]
    monkeypatch.setattr(os, "listdir", None)
    assert mechanisms(known, "pandas") == ["stop"]


def test_a_worker_without_verdicts_imports_nothing_for_them():
    code = (
        "import sys, pathlib, mempressure.worker.managed\n"
        "from mempressure.verdicts.known import KnownVerdicts\n"
        "known = KnownVerdicts(lambda: pathlib.Path('/nowhere/at/all')); known.refresh(); known.mechanism('pandas')\n"
        "print([name for name in sys.modules if name.startswith('mempressure.verdicts.verdict')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
