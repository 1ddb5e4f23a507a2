import gc
import pickle
import sys
import threading
from importlib import import_module
from types import ModuleType

import pytest

from mempressure.packages.deferred_import import DeferredModule, TrackingFinder


class Listener:
    def __init__(self):
        self.calls = []

        self.imports = {}

    def imported(self, measured):
        self.calls.append((measured.package, measured.root))
        self.imports[measured.package] = measured
        assert measured.seconds >= 0

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
    gc.collect()  # what earlier tests left must not be given back while something is measured
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


def test_bytes_are_its_own_and_with_what_it_imported_and_the_importer_is_known(packages, finder, listener):
    # Straight from the kernel, so that an allocator has none of it to spare.
    holds = "import mmap\nHELD = mmap.mmap(-1, {size}, flags=34)\nfor n in range(0, {size}, 4096): HELD[n] = 1\n"
    (packages / "outer" / "__init__.py").write_text("import inner, outer.sub\n" + holds.format(size=8 << 20))
    (packages / "outer" / "sub.py").write_text(holds.format(size=2 << 20))
    (packages / "inner" / "__init__.py").write_text(holds.format(size=4 << 20))
    import_module("outer")
    outer, inner = listener.imports["outer"], listener.imports["inner"]
    assert (outer.importer, inner.importer) == ("", "outer")
    assert [round(size / (1 << 20)) for size in (outer.self_bytes, outer.cumulative_bytes)] == [10, 14]
    assert [round(size / (1 << 20)) for size in (inner.self_bytes, inner.cumulative_bytes)] == [4, 4]


def test_what_a_function_of_a_package_imports_is_that_packages(packages, finder, listener):
    lazily = "import importlib\ndef load(): return importlib.import_module('inner')\ndef own(): import outer.sub\n"
    (packages / "outer" / "__init__.py").write_text(lazily)
    (packages / "inner" / "__init__.py").write_text("")
    (packages / "outer" / "sub.py").write_text("")
    measured = []
    listener.imported = measured.append
    outer = import_module("outer")
    outer.load()
    outer.own()
    assert [(one.package, one.root, one.importer) for one in measured] == [
        ("outer", True, ""),
        ("inner", True, "outer"),
        ("outer", False, "outer"),
    ]


def test_what_a_package_imports_of_its_importer_is_counted_once(packages, finder, listener):
    (packages / "outer" / "__init__.py").write_text("import inner\n")
    (packages / "inner" / "__init__.py").write_text("import outer.sub\n")
    (packages / "outer" / "sub.py").write_text(
        "import mmap\nHELD = mmap.mmap(-1, 8 << 20, flags=34)\nfor n in range(0, 8 << 20, 4096): HELD[n] = 1\n"
    )
    measured = []
    listener.imported = measured.append
    import_module("outer")
    sub, inner, outer = measured
    assert [(one.package, one.root, one.importer) for one in measured] == [
        ("outer", False, "inner"),
        ("inner", True, "outer"),
        ("outer", True, ""),
    ]
    assert [round(one.self_bytes / (1 << 20)) for one in measured] == [8, 0, 0]
    assert sub.cumulative_bytes == 0
    assert [round(one.cumulative_bytes / (1 << 20)) for one in (inner, outer)] == [8, 8]


def test_what_is_not_tracked_counts_for_the_package_that_asked_for_it_first(packages, finder):
    for name, text in (
        ("untracked", ""),
        ("inner", "import untracked\n"),
        ("outer", "import inner, sys; del sys.modules['untracked']; import untracked\n"),
    ):
        path = packages / name / "__init__.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    import_module("outer")
    del sys.modules["untracked"]
    assert finder.owner("untracked") == "inner"
    assert finder.owner("outer") == "outer"
    assert finder.owner("sys") == ""


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
    with pytest.raises(
        AttributeError, match=r"module 'outer\.nowhere', imported on first use, cannot be imp"
    ) as caught:
        missing.anything  # noqa: B018 -- the access is the test
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert (caught.value.name, caught.value.obj) == ("anything", None)


def test_a_module_that_cannot_be_imported_has_no_attributes(finder):
    missing = finder.defer("outer.nowhere")
    assert not hasattr(missing, "anything")
    assert not hasattr(missing, "__wrapped__")
    assert getattr(missing, "anything", None) is None


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
