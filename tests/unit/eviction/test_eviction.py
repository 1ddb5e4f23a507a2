import gc
import importlib
import json
import os
import pickle
import sys
import threading
from collections import Counter
from contextlib import suppress
from types import ModuleType

import pytest

from mempressure.errors import EvictionRefusedError
from mempressure.eviction import evict
from mempressure.eviction.hollow import HollowModule, is_hollow
from mempressure.eviction.ownership import belongs, owner_of
from mempressure.packages.accessed_bit import ArmedModule, arm, take_used
from tests.support.evictable import load, snapshot
from tests.support.forking import in_child
from tests.support.waiting import until


def test_an_evicted_package_is_empty_until_it_is_used_and_then_as_it_was(evictable):
    root = sys.modules[evictable]
    eviction = evict(evictable)
    assert (eviction.package, eviction.modules) == (evictable, 5)
    assert 0 <= eviction.stalled_seconds <= eviction.seconds
    assert is_hollow(evictable)
    assert type(root) is HollowModule
    contents = ModuleType.__getattribute__(root, "__dict__")
    assert set(contents) == {"__name__", "__spec__", "__loader__", "__package__", "__path__", "__file__", "__cached__"}
    assert root.answer() == 42
    assert type(root) is ModuleType
    assert sys.modules[evictable] is root
    assert not is_hollow(evictable)


def test_all_that_the_package_held_is_gone(evictable):
    code = sys.modules[evictable].answer.__code__
    evict(evictable)
    left = [thing for thing in gc.get_objects() if belongs(owner_of(thing) or "", evictable)]
    left = [thing for thing in left if not isinstance(thing, ModuleType)]
    assert left == []
    assert sys.getrefcount(code) == 2  # the function that had it is gone


def test_submodules_that_were_loaded_are_loaded_again_in_their_order(evictable):
    before = sys.modules[evictable].ordered()
    assert before == ["evictable.plugins", "evictable.plugins.first"]
    before = list(before)
    evict(evictable)
    assert sys.modules[evictable].ordered() == before
    assert sys.modules[evictable].plugins.first.VALUE == 1


def test_an_alias_of_a_submodule_fills_the_whole_package(evictable):
    first = sys.modules["evictable.plugins.first"]
    evict(evictable)
    assert first.VALUE == 1
    assert sys.modules["evictable.plugins.first"] is first
    assert type(sys.modules[evictable]) is ModuleType
    assert sys.modules[evictable].plugins.first is first


def test_import_statements_load_nothing_until_something_is_used(evictable):
    evict(evictable)
    import evictable as root
    import evictable.plugins.first

    assert is_hollow("evictable")
    assert "evictable.registry" in sys.modules
    from evictable.plugins.first import VALUE

    assert VALUE == 1
    assert type(root) is ModuleType
    assert evictable.plugins.first.VALUE == 1


def test_a_submodule_imported_while_the_package_is_empty_finds_it_filled(evictable, tmp_path):
    (tmp_path / evictable / "late.py").write_text("from evictable import ANSWER\nfrom . import shapes\n")
    importlib.invalidate_caches()
    evict(evictable)
    late = importlib.import_module("evictable.late")
    assert late.ANSWER == 42
    assert late.shapes is sys.modules["evictable.shapes"]
    assert sys.modules[evictable].late is late


@pytest.mark.parametrize("name", ["__spec__", "__name__", "__file__", "__package__", "__loader__", "__cached__"])
def test_metadata_is_read_without_loading(evictable, name):
    value = getattr(sys.modules[evictable], name)
    evict(evictable)
    assert getattr(sys.modules[evictable], name) == value
    assert is_hollow(evictable)


@pytest.mark.parametrize(
    "use",
    [
        lambda m: vars(m)["ANSWER"],
        lambda m: "answer" in dir(m),
        lambda m: setattr(m, "ANSWER", 42),
        lambda m: delattr(m, "LIMITS"),
        lambda m: m.__doc__ is None,
        lambda m: importlib.reload(m) is m,
        lambda m: getattr(m, "missing", "absent") == "absent",
    ],
    ids=["vars", "dir", "setattr", "delattr", "doc", "reload", "missing"],
)
def test_whatever_is_done_to_an_empty_module_is_done_to_the_loaded_one(evictable, use):
    root = sys.modules[evictable]
    evict(evictable)
    use(root)
    assert type(root) is ModuleType
    assert sys.modules[evictable] is root
    assert root.answer() == 42


def test_setting_and_deleting_hold(evictable):
    root = sys.modules[evictable]
    evict(evictable)
    root.ANSWER = 43
    assert root.answer() == 43
    evict(evictable)
    del root.ANSWER
    with pytest.raises(NameError):
        root.answer()


def test_looking_at_an_empty_module_loads_nothing(evictable):
    root = sys.modules[evictable]
    evict(evictable)
    assert "evictable" in repr(root)
    assert isinstance(root, ModuleType)
    make, arguments = root.__reduce_ex__(2)
    assert make(*arguments) is root
    assert is_hollow(evictable)


def test_an_armed_package_is_evicted_and_arming_it_empty_does_nothing(evictable):
    root = sys.modules[evictable]
    assert arm(root)
    evict(evictable)
    assert not arm(root)
    assert type(root) is HollowModule
    take_used([evictable])
    assert root.answer() == 42
    assert arm(root)
    assert type(root) is ArmedModule


def test_evicting_again_and_again(evictable):
    root = sys.modules[evictable]
    for _ in range(20):
        evict(evictable)
        assert root.area(3) == 9
        assert root.plugins.first.VALUE == 1
        assert pickle.loads(pickle.dumps(root.Square(2))).side == 2  # noqa: S301 - our own bytes


def test_a_failing_reload_raises_its_own_error_and_the_next_access_tries_again(evictable, tmp_path):
    root, shapes = sys.modules[evictable], sys.modules["evictable.shapes"]
    evict(evictable)
    source = tmp_path / evictable / "registry.py"
    good = source.read_text()
    source.write_text("raise RuntimeError('not today, of all days')\n")
    for access in (lambda: root.ANSWER, lambda: shapes.Square, lambda: importlib.import_module("evictable.late")):
        with pytest.raises(RuntimeError, match="not today"):
            access()
        assert is_hollow(evictable)
        assert sys.modules[evictable] is root
        assert sys.modules["evictable.shapes"] is shapes
        assert type(root) is type(shapes) is HollowModule
        assert "Square" not in ModuleType.__getattribute__(shapes, "__dict__")
    source.write_text(good)
    assert root.answer() == 42
    assert shapes.Square is root.Square
    assert list(root.registry.NAMES) == ["evictable.plugins", "evictable.plugins.first"]


def test_deleting_an_empty_package_from_sys_modules_gives_a_new_one(evictable):
    root, first = sys.modules[evictable], sys.modules["evictable.plugins.first"]
    evict(evictable)
    del sys.modules[evictable]
    new = importlib.import_module(evictable)
    assert new is not root
    assert new.answer() == 42
    assert root.answer() == 42  # passes on
    assert first.VALUE == 1
    assert root.Square is new.Square


def test_threads_wait_for_the_whole_package(evictable, tmp_path):
    root = sys.modules[evictable]
    evict(evictable)
    started, go = tmp_path / "started", tmp_path / "go"
    registry = tmp_path / evictable / "registry.py"
    registry.write_text(
        f"{registry.read_text()}\nimport os, time\nopen({os.fspath(started)!r}, 'w').close()\n"
        f"while not os.path.exists({os.fspath(go)!r}): time.sleep(0.01)\n"
    )
    answers = []

    def use():
        answers.append((root.answer(), root.Square(2).side, list(root.ordered())))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(started.exists, "the package to be loading")
    assert answers == []
    go.touch()
    for thread in threads:
        thread.join(10)
    assert answers == [(42, 2, ["evictable.plugins", "evictable.plugins.first"])] * 8


def test_a_child_forked_while_another_thread_fills_the_package_fills_it_itself(evictable, tmp_path):
    root = sys.modules[evictable]
    evict(evictable)
    started, go = tmp_path / "started", tmp_path / "go"
    registry = tmp_path / evictable / "registry.py"
    registry.write_text(
        f"{registry.read_text()}\nimport os, time\nopen({os.fspath(started)!r}, 'w').close()\n"
        f"while os.getpid() == {os.getpid()} and not os.path.exists({os.fspath(go)!r}): time.sleep(0.01)\n"
    )
    thread = threading.Thread(target=lambda: root.ANSWER)
    thread.start()
    try:
        until(started.exists, "the package to be loading")

        def check():
            assert root.answer() == 42
            assert root.ordered() == ["evictable.plugins", "evictable.plugins.first"]

        in_child(check, seconds=20)
    finally:
        go.touch()
        thread.join(10)
    assert root.answer() == 42


def test_a_forked_child_fills_for_itself(evictable):
    root = sys.modules[evictable]
    evict(evictable)

    def check():
        assert root.answer() == 42
        evict(evictable)  # loaded in this process, so that nothing is shared
        assert root.answer() == 42

    in_child(check)
    assert is_hollow(evictable)


def refused(package):
    with pytest.raises(EvictionRefusedError) as caught:
        evict(package)
    assert caught.value.package == package
    return caught.value


def test_what_was_loaded_before_a_fork_is_refused_in_the_child(evictable):
    def check():
        before = snapshot()
        assert "before this process was forked" in refused(evictable).reason
        assert snapshot() == before

    in_child(check)


def test_frozen_objects_are_refused(evictable):
    gc.freeze()
    try:
        assert "gc.freeze" in refused(evictable).reason
    finally:
        gc.unfreeze()
    evict(evictable)


def test_what_was_unfrozen_or_is_immortal_is_not_frozen(evictable, monkeypatch):
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 375)  # what a fresh CPython 3.12 says
    evict(evictable)


def test_a_package_put_in_the_place_of_an_empty_one_is_evicted(evictable):
    evict(evictable)
    for name in [name for name in sys.modules if name.partition(".")[0] == evictable]:
        del sys.modules[name]
    root = load()
    assert not is_hollow(evictable)
    evict(evictable)
    assert type(root) is HollowModule
    assert root.answer() == 42


@pytest.mark.parametrize("package", ["numpy", "pandas"])
def test_packages_with_extension_modules_are_refused(package):
    importlib.import_module(package)
    before = snapshot(package)
    assert "is an extension module" in refused(package).reason
    assert snapshot(package) == before


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("nothing_of_that_name", "not loaded"),
        ("evictable.shapes", "only whole packages"),
        ("mempressure", "is what evicts"),
        ("sys", "extension module"),
    ],
)
def test_what_cannot_be_evicted_is_refused_by_name(evictable, package, reason):
    assert reason in refused(package).reason


def test_an_empty_package_is_refused(evictable):
    evict(evictable)
    assert "empty already" in refused(evictable).reason


def test_a_module_of_its_own_class_is_refused(evictable):
    class Lazy(ModuleType):
        def __getattribute__(self, name):
            raise AssertionError(f"{name} was read")

    sys.modules["evictable.lazy"] = Lazy("evictable.lazy")
    assert "evictable.lazy is no plain module" in refused(evictable).reason


def test_a_module_without_a_name_of_its_own_is_refused(evictable):
    sys.modules["evictable.second_name"] = sys.modules["evictable.shapes"]
    assert "evictable.second_name has no import specification of its own" in refused(evictable).reason


def test_another_packages_module_under_the_packages_name_is_left_alone(evictable):
    sys.modules["evictable.json"] = json
    evict(evictable)
    assert json.loads("1") == 1
    assert is_hollow(evictable)
    assert sys.modules["evictable.json"] is json


def test_a_package_that_is_being_imported_is_refused(evictable, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    (tmp_path / evictable / "slow.py").write_text(
        f"import os, time\nopen({os.fspath(started)!r}, 'w').close()\n"
        f"while not os.path.exists({os.fspath(go)!r}): time.sleep(0.01)\n"
    )
    importlib.invalidate_caches()
    thread = threading.Thread(target=importlib.import_module, args=("evictable.slow",))
    thread.start()
    try:
        until(started.exists, "the import to begin")
        assert "evictable.slow is being imported now" in refused(evictable).reason
    finally:
        go.touch()
        thread.join(10)


def test_threads_hammering_a_package_that_is_evicted_again_and_again_get_right_answers_only(evictable):
    root, shapes = sys.modules[evictable], sys.modules["evictable.shapes"]
    first = sys.modules["evictable.plugins.first"]
    leave, wrong, uses = threading.Event(), [], Counter()

    def use(number):
        while not leave.is_set():
            try:
                assert root.answer() == 42
                assert shapes.area(number) == number**2
                from evictable import Square

                assert isinstance(root.Square(2), Square)
                del Square
                import evictable.registry

                assert evictable.registry.NAMES == ["evictable.plugins", "evictable.plugins.first"]
                assert root.plugins.first is first
                assert first.VALUE == 1
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is wrong
                wrong.append(repr(error))
            uses[number] += 1
            leave.wait(0.005 * number)

    def tick():
        while not leave.is_set():
            for module in (root, shapes, first):
                arm(module)
            leave.wait(0.001)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=use, args=(number,)) for number in range(1, 6)]
    threads.append(threading.Thread(target=tick))
    evictions = 0

    def enough():
        nonlocal evictions
        with suppress(EvictionRefusedError):
            evict(evictable)
            evictions += 1
        return evictions >= 10 or wrong

    try:
        for thread in threads:
            thread.start()
        until(enough, lambda: f"10 evictions, {evictions} were made", seconds=60)
    finally:
        leave.set()
        for thread in threads:
            thread.join(30)
        sys.setswitchinterval(interval)
    assert wrong == []
    assert min(uses.values()) > 0
