import gc
import sys
from types import ModuleType

import pytest

from mempressure.measure.reading import UNKNOWN
from mempressure.packages import tracking
from mempressure.packages.accessed_bit import disarm
from mempressure.packages.deferred_import import Import
from mempressure.packages.tracking import PackageTracker
from tests.support.doubles.clock import Clock
from tests.support.forking import in_child

HOLDS_MEMORY = """
import mmap
# Straight from the kernel: an allocator may have that much to spare from the tests before.
VALUE = mmap.mmap(-1, 8_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for start in range(0, len(VALUE), mmap.PAGESIZE):
    VALUE[start] = 1
"""


@pytest.fixture
def clock():
    return Clock(1000.0)


@pytest.fixture
def changes():
    return []


@pytest.fixture
def tracker(clock, changes, tmp_path, monkeypatch):
    package = tmp_path / "tracked_one"
    (package / "deep" / "deeper").mkdir(parents=True)
    (package / "__init__.py").write_text(HOLDS_MEMORY)
    (package / "deep" / "__init__.py").write_text("VALUE = 2\n")
    (package / "deep" / "deeper" / "__init__.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    tracker = PackageTracker(clock=clock, on_change=lambda: changes.append(clock.now))
    yield tracker
    tracker.close()
    for name in [n for n in sys.modules if n.partition(".")[0] == "tracked_one"]:
        disarm(sys.modules.pop(name))


def only(tracker):
    (state,) = tracker.states()
    return state


def test_a_package_is_named_by_its_root_and_not_loaded_before_use(tracker):
    tracker.track("tracked_one.deep", timeout=5.0, priority=2, keep_loaded=True)
    state = only(tracker)
    assert (state.name, state.timeout, state.priority, state.keep_loaded) == ("tracked_one", 5.0, 2, True)
    assert (state.loaded, state.loads, state.last_used, state.mechanism) == (0, 0, -1, "recycle")
    assert "tracked_one.anything" in tracker
    assert "other" not in tracker


def test_loading_is_measured_and_told(tracker, clock, changes):
    tracker.track("tracked_one", timeout=5.0)
    module = tracker.defer("tracked_one")
    assert len(module.VALUE) == 8_000_000
    state = only(tracker)
    assert (state.loaded, state.loads, state.last_used) == (1, 1, clock.now)
    assert state.memory_bytes > 7_000_000
    assert state.load_seconds > 0
    assert changes == [clock.now]


def test_a_use_is_dated_at_the_tick_that_sees_it(tracker, clock):
    tracker.track("tracked_one", timeout=5.0)
    module = tracker.defer("tracked_one")
    assert module.VALUE
    tracker.tick()
    clock.now += 10
    tracker.tick()
    assert only(tracker).last_used == 1000.0
    assert module.VALUE
    clock.now += 10
    tracker.tick()
    assert only(tracker).last_used == 1020.0


def test_use_through_a_direct_child_counts(tracker, clock):
    tracker.track("tracked_one", timeout=5.0)
    from tracked_one import deep

    tracker.tick()
    tracker.tick()
    clock.now += 10
    assert deep.VALUE == 2
    tracker.tick()
    assert only(tracker).last_used == 1010.0


def test_a_using_block_is_use_while_it_lasts_and_at_its_end(tracker, clock):
    tracker.track("tracked_one", timeout=5.0)
    with tracker.using("tracked_one"):
        assert only(tracker).active_calls == 1
        clock.now += 30
    state = only(tracker)
    assert (state.active_calls, state.last_used) == (0, 1030.0)


def test_what_the_parent_used_at_the_fork_is_not_in_use_in_the_child(tracker):
    tracker.track("tracked_one", timeout=5.0)
    with tracker.using("tracked_one"):

        def child():
            tracker.after_fork()
            assert only(tracker).active_calls == 0
            with tracker.using("tracked_one"):
                assert only(tracker).active_calls == 1

        in_child(child)
        assert only(tracker).active_calls == 1


def test_the_end_of_a_use_waits_for_no_lock(tracker):
    """The garbage collector ends generators, also in a thread that holds the tracker's lock."""
    tracker.track("tracked_one", timeout=5.0)
    block = tracker.using("tracked_one")
    block.__enter__()
    with tracker._lock:
        block.__exit__(None, None, None)
    assert only(tracker).active_calls == 0


def test_a_package_that_was_there_before_counts_as_used_now(tracker, clock):
    tracker.track("json", timeout=5.0)
    state = only(tracker)
    assert (state.loaded, state.loads, state.last_used, state.memory_bytes) == (1, 1, clock.now, 0)


def test_the_last_options_hold(tracker):
    tracker.track("tracked_one", timeout=5.0)
    tracker.track("tracked_one", timeout=9.0, priority=1)
    state = only(tracker)
    assert (state.timeout, state.priority) == (9.0, 1)


def test_closing_leaves_plain_modules(tracker):
    tracker.track("tracked_one", timeout=5.0)
    module = tracker.defer("tracked_one")
    assert module.VALUE
    tracker.tick()
    tracker.close()
    assert type(module).__name__ == "module"


def test_uses_are_ticks_that_saw_one_and_blocks(tracker):
    tracker.track("tracked_one", timeout=5.0)
    module = tracker.defer("tracked_one")
    assert module.VALUE
    assert only(tracker).uses == 0  # that was its load
    tracker.tick()
    for _ in range(3):
        assert module.VALUE
    tracker.tick()
    tracker.tick()
    assert only(tracker).uses == 1
    with tracker.using("tracked_one"):
        pass
    assert only(tracker).uses == 2


def test_a_lazy_module_of_another_library_is_not_loaded_by_a_tick(tracker):
    class Lazy(ModuleType):
        def __getattribute__(self, name):
            raise AssertionError(f"{name} was read")

    tracker.track("tracked_one", timeout=5.0)
    assert tracker.defer("tracked_one").VALUE
    sys.modules["tracked_one.lazy"] = Lazy("tracked_one.lazy")
    tracker.tick()
    tracker.tick()
    del sys.modules["tracked_one.lazy"]


@pytest.fixture
def chain(tracker, tmp_path):
    """Track three packages that hold memory: `tracked_two` imports `tracked_one`, `tracked_three` may."""
    for name in ("tracked_two", "tracked_three"):
        (tmp_path / f"{name}.py").write_text("import tracked_one\n" + HOLDS_MEMORY)
        tracker.track(name, timeout=5.0)
    tracker.track("tracked_one", timeout=5.0)
    gc.collect()  # what earlier tests left must not be given back while something is measured
    yield {"tracked_two": 8_000_000, "tracked_three": 8_000_000}
    for name in ("tracked_two", "tracked_three"):
        if name in sys.modules:
            disarm(sys.modules.pop(name))


def by_name(tracker):
    return {state.name: state for state in tracker.states()}


def megabytes(size):
    return round(size / 1e6)


def test_what_a_package_would_free_is_its_own_and_what_only_it_leads_to(tracker, chain):
    assert tracker.defer("tracked_two").VALUE
    tracker.update_attribution()
    states = by_name(tracker)
    two, one, three = states["tracked_two"], states["tracked_one"], states["tracked_three"]
    assert (two.imports, one.imports) == (["tracked_one"], [])
    assert [megabytes(size) for size in (two.memory_bytes, two.cumulative_bytes, two.freed_bytes)] == [8, 16, 16]
    assert [megabytes(size) for size in (one.memory_bytes, one.cumulative_bytes, one.freed_bytes)] == [8, 8, 8]
    assert (three.memory_bytes, three.freed_bytes) == (0, UNKNOWN)


def test_who_imports_what_was_loaded_already_shares_it(tracker, chain):
    assert tracker.defer("tracked_two").VALUE
    assert tracker.defer("tracked_three").VALUE  # its import finds tracked_one loaded, and the import system is silent
    tracker.update_attribution()
    states = by_name(tracker)
    assert states["tracked_three"].imports == ["tracked_one"]
    assert [megabytes(states[name].freed_bytes) for name in chain] == [8, 8]
    assert megabytes(states["tracked_three"].cumulative_bytes) == 8


def test_what_the_application_uses_itself_stays(tracker, chain, monkeypatch):
    assert tracker.defer("tracked_two").VALUE
    application = ModuleType("application")
    application.__file__ = "/srv/application.py"
    application.one = sys.modules["tracked_one"]
    monkeypatch.setitem(sys.modules, "application", application)
    tracker.update_attribution()
    assert megabytes(by_name(tracker)["tracked_two"].freed_bytes) == 8


def test_attributing_looks_again_only_where_modules_came_or_went_and_seldom(tracker, chain, monkeypatch):
    looks = []
    look = tracking.references
    monkeypatch.setattr(tracking, "references", lambda *args, **options: looks.append(1) or look(*args, **options))
    assert tracker.defer("tracked_two").VALUE
    tracker.update_attribution(now=100.0)
    tracker.update_attribution(now=1000.0)
    assert len(looks) == 1
    assert tracker.defer("tracked_three").VALUE
    tracker.update_attribution(now=100.001)  # looking took a hundredth of that at the very least
    assert len(looks) == 1
    tracker.update_attribution(now=1000.0)
    assert len(looks) == 2
    monkeypatch.setitem(sys.modules, "another", ModuleType("another"))
    tracker.update_attribution()  # asked for: whenever that was last
    assert len(looks) == 3


def test_a_load_makes_what_was_found_before_unknown(tracker, chain):
    assert tracker.defer("tracked_two").VALUE
    tracker.update_attribution()
    assert tracker.defer("tracked_three").VALUE
    assert {state.freed_bytes for state in tracker.states()} == {UNKNOWN}


def test_a_package_that_was_there_before_is_not_measured(tracker):
    tracker.track("json", timeout=5.0)
    tracker.update_attribution()
    state = only(tracker)
    assert (state.cumulative_bytes, state.freed_bytes) == (UNKNOWN, UNKNOWN)


def test_without_the_accessed_bit_nobody_knows_for_how_long_a_package_has_been_idle(tracker, clock):
    tracker.accessed_bit = False
    tracker.track("tracked_one", timeout=5.0)
    module = tracker.defer("tracked_one")
    assert module.VALUE
    tracker.tick()
    assert type(module) is ModuleType
    assert (only(tracker).loaded, only(tracker).last_used) == (1, UNKNOWN)
    with tracker.using("tracked_one"):
        assert only(tracker).active_calls == 1


def test_what_was_loaded_at_the_fork_is_inherited(tracker):
    tracker.track("tracked_one", timeout=5.0)
    tracker.track("json", timeout=5.0)
    assert tracker.inherited == ()

    def check():
        tracker.after_fork()
        assert tracker.inherited == ("json",)
        tracker.defer("tracked_one").VALUE  # noqa: B018 -- imports it
        tracker.tick()
        one, other = tracker.states()
        assert (one.source, one.last_used > 0) == ("import", True)
        assert (other.source, other.last_used) == ("parent", UNKNOWN)
        assert type(sys.modules["json"]) is ModuleType

    in_child(check)


def test_a_forked_process_publishes_what_was_discovered_where_it_imports_it(tracker):
    tracker.track("json", timeout=5.0, discovered=True)
    tracker.track("tracked_one", timeout=5.0, discovered=True)
    assert [state.name for state in tracker.states()] == ["json", "tracked_one"]

    def check():
        tracker.after_fork()
        assert tracker.states() == []
        tracker.defer("tracked_one").VALUE  # noqa: B018 -- imports it
        assert [state.name for state in tracker.states()] == ["tracked_one"]

    in_child(check)


def test_what_is_imported_since_serving_began_is_late(tracker):
    tracker.track("tracked_one", timeout=5.0)
    tracker.track("tracked_other", timeout=5.0)
    tracker.imported(Import("tracked_one", True, "", 0.1, 1000, 1000))
    assert tracker.late_bytes == 1000
    tracker.begin_serving()
    assert tracker.late_bytes == 0
    tracker.imported(Import("tracked_one", False, "", 0.1, 30, 30))
    tracker.imported(Import("tracked_other", True, "", 0.1, 500, 500))
    assert [state.late_bytes for state in tracker.states()] == [30, 500]
    assert tracker.late_bytes == 530


def test_what_is_discovered_by_itself_is_measured_and_its_use_is_not_followed(tracker, changes, clock):
    tracker.discover_all(discovers(tracker, "tracked_one"))
    tracker.begin_serving()
    import tracked_one

    clock.now += 5
    tracker.tick()
    assert tracked_one.VALUE
    tracker.tick()
    tracker.update_attribution()
    state = only(tracker)
    assert (state.loaded, state.loads, state.uses, state.last_used, state.freed_bytes) == (1, 1, 0, UNKNOWN, UNKNOWN)
    assert state.memory_bytes > 7_000_000
    assert state.late_bytes == state.memory_bytes
    assert type(tracked_one) is ModuleType  # never armed
    assert changes == []


def test_a_declared_package_is_followed_beside_what_is_discovered(tracker, changes):
    tracker.discover_all(discovers(tracker, "tracked_one"))
    tracker.track("tracked_one", timeout=5.0)
    import tracked_one

    tracker.tick()
    assert tracked_one.VALUE
    tracker.tick()
    assert only(tracker).uses > 0
    assert len(changes) == 1


def test_discovering_twice_measures_once(tracker):
    for _ in range(2):
        tracker.discover_all(discovers(tracker, "tracked_one"))
    import tracked_one  # noqa: F401 -- for what importing it does

    assert only(tracker).loads == 1


def discovers(tracker, *names):
    """Discover these packages as a loader does when it is to track all imports."""

    def discover(name):
        if name in names and name not in tracker:
            tracker.track(name, timeout=5.0, discovered=True)
        return name in names

    return discover
