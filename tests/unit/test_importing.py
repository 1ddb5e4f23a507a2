import pickle
import sys
import threading
from importlib import import_module
from types import ModuleType

import pytest

from mempressure.importing import DeferredModule, TrackingFinder


class Listener:
    def __init__(self):
        self.calls = []

    def imported(self, package, *, root, seconds, added_bytes):
        self.calls.append((package, root))
        assert seconds >= 0
        assert isinstance(added_bytes, int)

    @property
    def roots(self):
        return [package for package, root in self.calls if root]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages `outer` (imports `inner`, has a submodule) and `inner`, `broken`, `replaced`; forgotten later."""
    files = {
        "outer/__init__.py": "import time; time.sleep(0.05); import inner; VALUE = inner.VALUE + 1\n",
        "outer/sub.py": "NAME = __name__\n",
        "inner/__init__.py": "VALUE = 1\n",
        "broken/__init__.py": "PARTIAL = 1\nraise RuntimeError('not today')\n",
        "replaced/__init__.py": (
            "import sys, types\nnew = types.ModuleType(__name__)\nnew.VALUE = 7\nsys.modules[__name__] = new\n"
        ),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n.partition(".")[0] in {"outer", "inner", "broken", "replaced"}]:
        del sys.modules[name]


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def finder(packages, listener):
    tracked = {"outer", "inner", "broken", "replaced", "_csv"}
    finder = TrackingFinder(tracked.__contains__, listener)
    finder.install()
    yield finder
    finder.uninstall()


def test_a_deferred_module_is_imported_at_first_use_and_is_then_an_ordinary_module(finder, listener):
    outer = finder.defer("outer")
    assert "outer" not in sys.modules
    assert outer.__name__ == "outer"  # its name loads nothing
    assert "outer" not in sys.modules
    assert outer.VALUE == 2
    assert sys.modules["outer"] is outer
    assert type(outer) is ModuleType
    assert type(outer.__spec__.loader).__name__ == "SourceFileLoader"


def test_other_importers_get_the_same_object(finder):
    outer = finder.defer("outer")
    import outer as other

    assert other is outer
    assert type(outer) is ModuleType


def test_a_submodule_is_deferred_with_its_parent(finder):
    sub = finder.defer("outer.sub")
    assert "outer" not in sys.modules
    assert sub.NAME == "outer.sub"
    assert sys.modules["outer"].sub is sub


def test_a_loaded_module_is_returned_as_it_is(finder):
    assert finder.defer("sys") is sys


def test_boundaries_are_measured_once_each_nested_packages_apart(finder, listener):
    import_module("outer")
    assert listener.calls == [("inner", True), ("outer", True)]
    import_module("outer.sub")
    assert listener.calls[2:] == [("outer", False)]


def test_untracked_imports_are_left_to_the_other_finders(finder, listener):
    assert finder.find_spec("json") is None
    assert not listener.calls


def test_threads_wait_for_the_one_that_imports(finder):
    outer = finder.defer("outer")
    values, barrier = [], threading.Barrier(8)

    def use():
        barrier.wait()
        values.append(outer.VALUE)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [2] * 8


def test_a_failing_import_raises_each_time_and_leaves_nothing_half_done(finder, packages):
    broken = finder.defer("broken")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not today"):
            broken.anything  # noqa: B018 -- the access is the test
        assert type(broken) is DeferredModule
        assert "PARTIAL" not in ModuleType.__getattribute__(broken, "__dict__")
    (packages / "broken" / "__init__.py").write_text("anything = 'mended'\n")
    sys.path_importer_cache.clear()
    assert broken.anything == "mended"


def test_a_package_that_is_not_there_says_so_at_first_use(finder):
    missing = finder.defer("outer.nowhere")
    with pytest.raises(ModuleNotFoundError, match=r"outer\.nowhere"):
        missing.anything  # noqa: B018 -- the access is the test


def test_setting_an_attribute_loads_first(finder):
    outer = finder.defer("outer")
    outer.VALUE = 9
    assert sys.modules["outer"].VALUE == 9


def test_a_module_that_replaces_itself_is_passed_on_to(finder):
    replaced = finder.defer("replaced")
    assert replaced.VALUE == 7
    replaced.VALUE = 8
    assert sys.modules["replaced"].VALUE == 8


def test_an_extension_module_is_passed_on_to(finder, monkeypatch):
    monkeypatch.delitem(sys.modules, "_csv")
    deferred = finder.defer("_csv")
    assert callable(deferred.reader)


def test_dir_lists_what_the_module_has(finder):
    assert "VALUE" in dir(finder.defer("outer"))


def test_uninstalled_it_is_out_of_the_way(finder):
    finder.uninstall()
    assert finder not in sys.meta_path
    import inner

    assert inner.VALUE == 1


@pytest.mark.parametrize("name", ["__file__", "__path__", "__spec__", "__doc__", "__loader__"])
def test_metadata_is_that_of_the_loaded_module(finder, name):
    outer = finder.defer("outer")
    assert getattr(outer, name) == getattr(sys.modules["outer"], name)
    assert vars(outer)["VALUE"] == 2


def test_a_deferred_module_pickles_as_its_name(finder):
    outer = finder.defer("outer")
    assert pickle.loads(pickle.dumps(outer)) is outer  # noqa: S301 -- what was just dumped


def test_deleting_an_attribute_loads_first(finder):
    outer = finder.defer("outer")
    del outer.VALUE
    assert not hasattr(sys.modules["outer"], "VALUE")


def test_a_module_deleted_from_sys_modules_is_imported_anew(finder):
    outer = finder.defer("outer")
    outer.VALUE = 9
    del sys.modules["outer"]
    again = import_module("outer")
    assert again is not outer
    assert (again.VALUE, outer.VALUE) == (2, 9)


def test_two_finders_that_ask_all_finders_find_what_is_there(finder, listener):
    other = TrackingFinder({"outer"}.__contains__, Listener())
    other.install()
    try:
        assert import_module("outer").VALUE == 2
    finally:
        other.uninstall()


def test_an_import_that_fails_counts_for_nothing(finder, listener):
    with pytest.raises(RuntimeError, match="not today"):
        import_module("broken")
    assert "broken" not in listener.roots
