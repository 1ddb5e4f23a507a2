import gc
import sys
from types import ModuleType

import pytest

from mempressure.errors import MemoryBudgetExceeded
from mempressure.eviction import eviction
from mempressure.eviction.hollow import is_hollow
from mempressure.measure.reading import UNKNOWN
from mempressure.packages import tracking
from mempressure.packages.accessed_bit import disarm
from mempressure.packages.reservation import Reservation
from mempressure.packages.tracking import PackageTracker
from tests.support.clock import Clock
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
    tracker.attribute()
    states = by_name(tracker)
    two, one, three = states["tracked_two"], states["tracked_one"], states["tracked_three"]
    assert (two.imports, one.imports) == (["tracked_one"], [])
    assert [megabytes(size) for size in (two.memory_bytes, two.cumulative_bytes, two.freed_bytes)] == [8, 16, 16]
    assert [megabytes(size) for size in (one.memory_bytes, one.cumulative_bytes, one.freed_bytes)] == [8, 8, 8]
    assert (three.memory_bytes, three.freed_bytes) == (0, UNKNOWN)


def test_who_imports_what_was_loaded_already_shares_it(tracker, chain):
    assert tracker.defer("tracked_two").VALUE
    assert tracker.defer("tracked_three").VALUE  # its import finds tracked_one loaded, and the import system is silent
    tracker.attribute()
    states = by_name(tracker)
    assert states["tracked_three"].imports == ["tracked_one"]
    assert [megabytes(states[name].freed_bytes) for name in chain] == [8, 8]
    assert megabytes(states["tracked_three"].cumulative_bytes) == 8


def test_what_the_application_uses_itself_stays(tracker, chain, monkeypatch):
    assert tracker.defer("tracked_two").VALUE
    application = ModuleType("application")
    application.one = sys.modules["tracked_one"]
    monkeypatch.setitem(sys.modules, "application", application)
    tracker.attribute()
    assert megabytes(by_name(tracker)["tracked_two"].freed_bytes) == 8


def test_attributing_looks_again_only_where_modules_came_or_went_and_seldom(tracker, chain, monkeypatch):
    looks = []
    look = tracking.references
    monkeypatch.setattr(tracking, "references", lambda *args, **options: looks.append(1) or look(*args, **options))
    assert tracker.defer("tracked_two").VALUE
    tracker.attribute(now=100.0)
    tracker.attribute(now=1000.0)
    assert len(looks) == 1
    assert tracker.defer("tracked_three").VALUE
    tracker.attribute(now=100.001)  # looking took a hundredth of that at the very least
    assert len(looks) == 1
    tracker.attribute(now=1000.0)
    assert len(looks) == 2
    monkeypatch.setitem(sys.modules, "another", ModuleType("another"))
    tracker.attribute()  # asked for: whenever that was last
    assert len(looks) == 3


def test_a_load_makes_what_was_found_before_unknown(tracker, chain):
    assert tracker.defer("tracked_two").VALUE
    tracker.attribute()
    assert tracker.defer("tracked_three").VALUE
    assert {state.freed_bytes for state in tracker.states()} == {UNKNOWN}


def test_a_package_that_was_there_before_is_not_measured(tracker):
    tracker.track("json", timeout=5.0)
    tracker.attribute()
    state = only(tracker)
    assert (state.cumulative_bytes, state.freed_bytes) == (UNKNOWN, UNKNOWN)


@pytest.fixture
def evicting(tracker):
    """A tracker whose package may be evicted, and the loaded package."""
    tracker.track("tracked_one", timeout=5.0, evict=True)
    module = tracker.defer("tracked_one")
    assert len(module.VALUE) == 8_000_000
    yield module
    is_hollow("tracked_one") and module.VALUE  # what is deleted from sys.modules must not be empty


def test_an_evicted_package_is_not_loaded_and_its_memory_is_back(tracker, evicting, changes, clock):
    assert (only(tracker).mechanism, only(tracker).evict_refused) == ("evict", "")
    reclaimed, reason = tracker.evict("tracked_one")
    assert reason is None
    assert reclaimed > 3_000_000  # of 8: looking at everything in a process that runs all tests takes memory that stays
    state = only(tracker)
    assert (state.loaded, state.unloads, state.reclaimed_bytes, state.memory_bytes) == (0, 1, reclaimed, 0)
    assert len(changes) == 2
    tracker.attribute()
    assert only(tracker).freed_bytes == UNKNOWN


def test_loading_an_evicted_package_again_is_a_load_and_soon_after_a_refault(tracker, evicting, clock):
    seconds = only(tracker).load_seconds
    tracker.evict("tracked_one")
    clock.now += 20
    assert len(evicting.VALUE) == 8_000_000
    state = only(tracker)
    assert (state.loaded, state.loads, state.refaults, state.refault_delay) == (1, 2, 1, 20)
    assert (state.refault_level, state.last_refault, state.last_used) == (1, clock.now, clock.now)
    assert state.load_seconds > seconds
    assert state.memory_bytes > 7_000_000
    tracker.evict("tracked_one")
    clock.now += 61
    assert len(evicting.VALUE) == 8_000_000
    assert (only(tracker).loads, only(tracker).refaults) == (3, 1)


def test_use_of_a_package_that_was_loaded_again_is_seen(tracker, evicting, clock, monkeypatch):
    tracker.tick()
    tracker.evict("tracked_one")
    monkeypatch.setitem(sys.modules, "tracked_other", ModuleType("tracked_other"))  # modules are looked for anew
    tracker.tick()
    assert is_hollow("tracked_one")
    assert evicting.VALUE
    tracker.tick()
    clock.now += 10
    assert evicting.VALUE
    tracker.tick()
    assert only(tracker).last_used == 1010.0


def test_a_package_that_is_in_use_is_not_evicted(tracker, evicting, clock):
    tracker.tick()
    clock.now += 3
    assert tracker.evict("tracked_one", idle_for=5.0) == (0, "used 3.0 s ago")
    clock.now += 3
    assert evicting.VALUE  # since the last tick
    assert tracker.evict("tracked_one", idle_for=5.0) == (0, "used 0.0 s ago")
    clock.now += 6
    with tracker.using("tracked_one"):
        assert tracker.evict("tracked_one", idle_for=0.0) == (0, "in use")
    clock.now += 6
    assert tracker.evict("tracked_one", idle_for=5.0)[1] is None


def test_a_use_that_begins_while_the_package_is_looked_at_counts(tracker, evicting, clock, monkeypatch):
    look = eviction._look

    def used_meanwhile(*arguments):
        found = look(*arguments)
        assert evicting.VALUE
        return found

    monkeypatch.setattr(eviction, "_look", used_meanwhile)
    clock.now += 6
    tracker.tick()
    assert tracker.evict("tracked_one", idle_for=5.0) == (0, "used 0.0 s ago")


def test_only_what_was_opted_in_and_may_be_is_evicted(tracker, evicting):
    tracker.track("tracked_one", timeout=5.0)
    assert tracker.evict("tracked_one") == (0, "it was not opted in: declare it with evict=True")
    assert (only(tracker).mechanism, only(tracker).evict_refused) == ("recycle", "")
    tracker._evict_refused = "no {}".format
    tracker.track("tracked_one", timeout=5.0, evict=True)
    assert tracker.evict("tracked_one") == (0, "no tracked_one")
    assert (only(tracker).mechanism, only(tracker).evict_refused) == ("recycle", "no tracked_one")


def test_a_pinned_package_is_left_to_recycling_for_a_minute_and_the_pin_is_shown(tracker, evicting, clock):
    held = evicting.VALUE
    _, reason = tracker.evict("tracked_one")
    assert reason.startswith("it is pinned: an instance of mmap.mmap of the package is held by ")
    assert (only(tracker).mechanism, only(tracker).evict_refused) == ("recycle", reason)
    clock.now += tracking.RETRY_SECONDS
    assert (only(tracker).mechanism, only(tracker).evict_refused) == ("evict", "")
    del held
    assert tracker.evict("tracked_one")[1] is None


def test_what_was_loaded_before_a_fork_is_not_evicted_in_the_child(tracker, evicting):
    tracker.after_fork()
    assert "before this process was forked" in only(tracker).evict_refused
    assert "before this process was forked" in tracker.evict("tracked_one")[1]


def test_what_was_empty_at_a_fork_may_be_evicted_in_the_child_once_it_is_loaded_there(tracker, evicting):
    tracker.evict("tracked_one")
    tracker.after_fork()
    assert evicting.VALUE
    assert tracker.evict("tracked_one")[1] is None


def test_room_is_reserved_before_an_evicted_package_is_loaded_again(tracker, evicting):
    asked = []

    def reserve(package, cost):
        asked.append((package, cost))
        if len(asked) == 1:
            raise MemoryBudgetExceeded("no room")
        return Reservation(cost)

    tracker._reserve = reserve
    tracker.evict("tracked_one")
    with pytest.raises(MemoryBudgetExceeded):
        _ = evicting.VALUE
    assert is_hollow("tracked_one")
    assert evicting.VALUE
    assert evicting.VALUE
    assert asked == [("tracked_one", 0)] * 2


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

    in_child(check)


def test_where_evicting_is_not_supported_it_is_refused_with_the_reason(tracker, evicting):
    tracker.evict_unsupported = "gc.freeze() was called"
    assert tracker.evict("tracked_one") == (0, "gc.freeze() was called")
    assert (only(tracker).mechanism, only(tracker).evict_refused) == ("recycle", "gc.freeze() was called")
