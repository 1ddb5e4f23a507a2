import sys
from types import ModuleType

import pytest

from mempressure.accessed import disarm
from mempressure.tracking import PackageTracker
from tests.clock import Clock

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
