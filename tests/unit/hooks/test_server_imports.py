import importlib
import importlib.util
import sys
from importlib.machinery import BuiltinImporter, ModuleSpec
from types import ModuleType

import pytest

from mempressure.hooks.server_imports import ServerImports

NAME = "served_package.server"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A package with a server, which another module imports."""
    folder = tmp_path / "served_package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "server.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder / "server.py"
    for name in [name for name in sys.modules if name.partition(".")[0] == "served_package"]:
        del sys.modules[name]


@pytest.fixture
def watched():
    """Watch for the server; give back the finder, what was installed and what failed."""
    finders = []

    def watch(install=None, names=(NAME,)):
        installed, problems = [], []
        finder = ServerImports(
            dict.fromkeys(names, install or installed.append),
            on_problem=lambda name, error: problems.append((name, str(error))),
        )
        finders.append(finder)
        finder.watch()
        return finder, installed, problems

    yield watch
    for finder in finders:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


class Finder:
    """Finds one module, by a given loader."""

    def __init__(self, name, loader):
        self._spec = ModuleSpec(name, loader)

    def find_spec(self, fullname, _path, _target=None):
        return self._spec if fullname == self._spec.name else None


@pytest.fixture
def found_by(monkeypatch):
    def found_by(loader):
        monkeypatch.setattr(sys, "meta_path", [Finder("odd_server", loader), *sys.meta_path])

    yield found_by
    sys.modules.pop("odd_server", None)


def test_a_server_that_is_imported_later_is_hooked_once_it_has_been_executed(server, watched):
    seen = []
    finder, _, problems = watched(lambda module: seen.append(module.VALUE))
    assert finder in sys.meta_path
    importlib.import_module("served_package")
    assert seen == []
    module = importlib.import_module(NAME)
    assert (seen, finder.installed, problems) == ([1], {NAME}, [])
    assert importlib.import_module(NAME) is module
    assert seen == [1]


def test_a_server_that_is_there_already_is_hooked_at_once(server, watched):
    module = importlib.import_module(NAME)
    finder, installed, _ = watched()
    assert installed == [module]
    assert finder not in sys.meta_path


def test_nothing_is_left_of_the_finder_when_all_are_hooked(server, watched):
    finder, _, _ = watched()
    module = importlib.import_module(NAME)
    assert finder not in sys.meta_path
    assert "exec_module" not in vars(module.__loader__)
    assert module.__spec__.loader is module.__loader__
    importlib.reload(module)


def test_it_stays_while_another_server_is_waited_for(server, watched):
    finder, _, _ = watched(names=(NAME, "served_package.other"))
    importlib.import_module(NAME)
    assert finder in sys.meta_path


def test_one_that_is_only_looked_for_is_waited_for_still(server, watched):
    _, installed, _ = watched()
    assert importlib.util.find_spec(NAME).origin == str(server)
    assert installed == []
    assert [module.__name__ for module in [importlib.import_module(NAME)]] == [NAME]
    assert len(installed) == 1


def test_one_that_is_missing_or_fails_is_missing_as_ever_and_hooked_when_it_works(server, watched):
    _, installed, problems = watched(names=(NAME, "served_package.missing"))
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'served_package.missing'"):
        importlib.import_module("served_package.missing")
    server.write_text("raise RuntimeError('not today')\n")
    with pytest.raises(RuntimeError, match="not today"):
        importlib.import_module(NAME)
    assert (installed, problems) == ([], [])
    server.write_text("VALUE = 'it works now'\n")
    importlib.invalidate_caches()
    assert [importlib.import_module(NAME)] == installed


def test_a_hook_that_fails_is_said_and_the_import_goes_on(server, watched):
    def fail(module):
        raise AttributeError("no Arbiter")

    finder, _, problems = watched(fail)
    assert importlib.import_module(NAME).VALUE == 1
    assert (problems, finder.installed) == ([(NAME, "no Arbiter")], set())


class OldLoader:
    """A loader from before `exec_module`, which Python still knows."""

    def load_module(self, name):
        module = sys.modules[name] = ModuleType(name)
        return module


class SlottedLoader:
    __slots__ = ()

    def create_module(self, _spec):
        return None

    def exec_module(self, module):
        module.VALUE = 1


def test_a_loader_that_cannot_be_followed_loads_all_the_same_and_it_is_said(watched, found_by):
    found_by(SlottedLoader())
    finder, installed, problems = watched(names=("odd_server",))
    assert importlib.import_module("odd_server").VALUE == 1
    assert installed == []
    [(name, problem)] = problems
    assert name == "odd_server"
    assert "cannot be followed" in problem
    assert finder not in sys.meta_path


@pytest.mark.filterwarnings("ignore:.*exec_module:ImportWarning")
def test_a_loader_without_exec_module_loads_all_the_same(watched, found_by):
    found_by(OldLoader())
    _, installed, [] = watched(names=("odd_server",))
    assert importlib.import_module("odd_server")
    assert installed == []


def test_a_loader_that_is_a_class_is_left_as_it_is(watched, found_by):
    before = BuiltinImporter.exec_module
    found_by(BuiltinImporter)
    _, _, problems = watched(names=("odd_server",))
    importlib.util.find_spec("odd_server")
    assert len(problems) == 1
    assert BuiltinImporter.exec_module is before


def test_a_finder_that_asks_all_finders_is_answered(server, watched, monkeypatch):
    class Asking:
        def find_spec(self, name, path, target=None):
            if name != NAME:
                return None
            others = [finder for finder in sys.meta_path if finder is not self]
            return next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)

    monkeypatch.setattr(sys, "meta_path", [Asking(), *sys.meta_path])
    _, installed, _ = watched()
    importlib.import_module(NAME)
    assert len(installed) == 1
