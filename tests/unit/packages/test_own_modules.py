import sys
from types import ModuleType

import pytest

from mempressure.packages import own_modules
from mempressure.packages.own_modules import OwnModules
from tests.support.forking import in_child


@pytest.fixture
def forked(monkeypatch):
    """Return a function that says whether this process has a loaded parent."""
    return lambda answer: monkeypatch.setattr(own_modules, "forked_from_loaded_parent", lambda: answer)


@pytest.fixture
def new_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_modules_new", ModuleType("own_modules_new"))
    return sys.modules["own_modules_new"]


def test_in_a_process_of_its_own_all_modules_are_its_own(forked):
    forked(False)
    modules = OwnModules()
    assert not modules.has_parents
    assert dict(modules.items()) == sys.modules


def test_with_a_loaded_parent_only_later_imports_are_its_own(forked, request):
    forked(True)
    modules = OwnModules()
    assert modules.has_parents
    assert modules.items() == []
    module = request.getfixturevalue("new_module")
    assert modules.items() == [("own_modules_new", module)]


def test_what_was_there_at_the_fork_is_the_parents(forked):
    forked(False)
    modules = OwnModules()

    def check():
        modules.after_fork()
        assert modules.items() == []
        sys.modules["own_modules_new"] = ModuleType("own_modules_new")
        assert [name for name, _ in modules.items()] == ["own_modules_new"]

    in_child(check)


def test_a_look_touches_no_module_of_the_parent(forked, monkeypatch):
    """Where one of the parent's has gone, one too few of the own is found, never one of the parent's."""
    forked(True)
    monkeypatch.setitem(sys.modules, "own_modules_old", ModuleType("own_modules_old"))
    modules = OwnModules()
    monkeypatch.delitem(sys.modules, "own_modules_old")
    assert modules.items() == []
    monkeypatch.setitem(sys.modules, "own_modules_a", ModuleType("own_modules_a"))
    monkeypatch.setitem(sys.modules, "own_modules_b", ModuleType("own_modules_b"))
    assert [name for name, _ in modules.items()] == ["own_modules_b"]
