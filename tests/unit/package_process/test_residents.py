"""Residents and caches as the loader of a package process declares them."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mempressure.package_process.loader import LoaderInside
from stack.engines import ROOT


@pytest.fixture
def loader():
    return LoaderInside()


def test_a_resident_is_loaded_once_until_it_is_let_go(loader):
    calls = []

    @loader.resident(timeout=5, warm=True, name="model")
    def model():
        """Load it."""
        calls.append(1)
        return object()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: model(), range(20)))
    assert (len(set(map(id, found))), calls, model.loaded, model.__name__) == (1, [1], True, "model")
    assert model.release() == (0, None)
    assert model.release().skipped_reason == "not loaded"
    assert model() is not found[0]


def test_an_error_is_raised_and_the_next_call_tries_again(loader):
    answers = [OSError("gone"), None]

    def load():
        if error := answers.pop(0):
            raise error
        return "model"

    model = loader.resident(load)
    with pytest.raises(OSError, match="gone"):
        model()
    assert model() == "model"


def test_a_cache_is_the_standard_librarys(loader):
    cached = loader.cache(maxsize=3, timeout=5, typed=True)(lambda number: number**2)
    assert (cached(2), cached(2), cached.cache_info().hits) == (4, 4, 1)
    assert cached.cache_parameters() == {"maxsize": 3, "typed": True}
    assert cached.release() == (0, None)
    assert cached.cache_info().currsize == 0
    assert loader.cache(lambda: 1)() == 1


def test_what_is_installed_is_found_and_none_of_it_loads_the_whole_loader():
    script = """
import sys
from mempressure.package_process.loader import LoaderInside
loader = LoaderInside()
assert loader.installed("wave") and not loader.installed("nowhere_at_all")
assert loader.resident(lambda: 3)() == loader.cache(lambda: 3)() == 3
assert "typing" not in sys.modules
print(sorted(name for name in sys.modules if name.startswith("mempressure")))
"""
    environ = os.environ | {"PYTHONPATH": str(ROOT)}  # without site, which may have loaded typing
    command = [sys.executable, "-S", "-c", script]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert "mempressure.loader" not in done.stdout, done.stderr
    assert "mempressure.package_process.residents" in done.stdout, done.stderr
