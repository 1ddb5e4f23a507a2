"""The loader inside a package process: declarations work, and nothing is managed."""

import inspect

import pytest

from mempressure.loader import LazyLoader
from mempressure.package_process import functions, identity
from mempressure.package_process.loader import get_lazy_loader, inside


@pytest.fixture
def loader(monkeypatch):
    monkeypatch.setattr(functions, "_declared", {})
    monkeypatch.setattr(identity, "_known", True)
    monkeypatch.setattr(identity, "_packages", ("json",))
    return get_lazy_loader()


def work():
    return "worked"


def test_an_isolated_function_is_declared_and_runs_here(loader):
    declared = loader.isolated("json", processes=3, results="plain", timeout=5)(work)
    assert declared() == "worked"
    assert functions.declared(__name__, "work", __name__) is work


def test_the_declaring_module_is_noted(loader):
    assert loader.isolated("json")(work).__reduce__()[1] == (__name__, "work", __name__)
    assert inside(("json",), "shop.tasks")(work).__reduce__()[1] == (__name__, "work", "shop.tasks")


def test_a_start_function_is_found_by_its_name(loader):
    assert loader.on_start("json")(work) is work
    assert functions.declared(__name__, "work", __name__) is work


def test_what_is_for_workers_does_nothing(loader):
    assert loader.on_pressure("high")(work) is work
    assert loader.manage("json", timeout=3) is None
    assert loader.track_imports() is None
    assert loader.start() is None
    assert loader.stop() is None


def test_what_it_has_takes_what_the_whole_loader_takes(loader):
    for name in vars(type(loader)):
        if name.startswith("_"):
            continue
        here, there = inspect.signature(getattr(type(loader), name)), inspect.signature(getattr(LazyLoader, name))
        required = [each.name for each in there.parameters.values() if each.default is each.empty]
        here.bind(*required) if not any(p.kind is p.KEYWORD_ONLY for p in there.parameters.values()) else None
        assert len(here.parameters) <= len(there.parameters), name
