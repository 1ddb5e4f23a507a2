"""Whether packages are installed, found out on a path of the test's own without importing anything."""

import sys
from types import ModuleType

import pytest

from mempressure.errors import ConfigurationError, MempressureError
from mempressure.loader import LazyLoader
from mempressure.packages.installed import is_installed, require_installed


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Modules whose import fails the test: a package with a module, a module, and a namespace package."""
    (tmp_path / "there" / "deep").mkdir(parents=True)
    (tmp_path / "spaced" / "inner").mkdir(parents=True)
    for path in ("there/__init__.py", "there/part.py", "there/deep/__init__.py", "single.py", "spaced/inner/leaf.py"):
        (tmp_path / path).write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("there", True),
        ("there.part", True),
        ("there.deep", True),
        ("there.nowhere", False),
        ("there.part.nowhere", False),
        ("single", True),
        ("single.part", False),
        ("spaced.inner.leaf", True),
        ("spaced.inner.nowhere", False),
        ("nowhere_at_all", False),
        ("nowhere_at_all.part", False),
        ("sys", True),
        ("os.path", True),
        ("importlib.machinery", True),
    ],
)
def test_what_an_import_would_find(packages, name, expected):
    before = set(sys.modules)
    assert is_installed(name) is expected
    assert LazyLoader(with_agent=False).installed(name) is expected
    assert {each for each in set(sys.modules) - before if each.startswith(("there", "single", "spaced"))} == set()


def test_what_was_made_in_memory_is_there_and_what_is_blocked_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "made_in_memory", ModuleType("made_in_memory"))
    monkeypatch.setitem(sys.modules, "blocked", None)
    assert is_installed("made_in_memory")
    assert not is_installed("blocked")


class Finder:
    """A finder that fails for one name."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, _path, _target=None):
        if name == "broken":
            raise self.error


def test_a_finder_that_fails_to_import_says_no_and_another_failure_is_named(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [Finder(ImportError("no such thing")), *sys.meta_path])
    assert not is_installed("broken")
    monkeypatch.setattr(sys, "meta_path", [Finder(OSError("disk")), *sys.meta_path])
    with pytest.raises(MempressureError, match=r"'broken' is installed cannot be told: .*Finder.*OSError\('disk'\)"):
        is_installed("broken")


@pytest.mark.parametrize("name", ["", ".relative", "with space", "a..b", 3])
def test_names_that_cannot_be_a_modules(name):
    with pytest.raises(ConfigurationError, match="package name"):
        LazyLoader(with_agent=False).installed(name)


def test_a_declaration_of_what_is_not_installed_says_how_to_make_it_optional():
    loader = LazyLoader(with_agent=False)
    words = r"package 'nowhere_at_all' is not installed for .*only if loader\.installed\('nowhere_at_all'\)"
    for declare in (loader.import_module, loader.isolated):
        with pytest.raises(ConfigurationError, match=words):
            declare("nowhere_at_all")
    with pytest.raises(ConfigurationError, match=words):
        loader.import_module("nowhere_at_all.part")
    assert loader.packages() == []


def test_only_the_package_must_be_there_since_it_may_make_its_submodules(packages):
    require_installed("there.made_when_imported")


def test_what_is_managed_may_come_later(tmp_path, monkeypatch):
    loader = LazyLoader(with_agent=False)
    loader.manage("comes_later")
    (tmp_path / "comes_later.py").write_text("value = 1")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        import comes_later  # it was not there before

        assert comes_later.value == 1
        assert loader.packages()[0].loads == 1
    finally:
        loader.close()
        sys.modules.pop("comes_later", None)
