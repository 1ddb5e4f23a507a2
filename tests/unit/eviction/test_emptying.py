import gc
import sys
from itertools import chain
from types import ModuleType

import pytest

from mempressure.eviction import emptying
from mempressure.eviction.emptying import Candidate, empty
from mempressure.eviction.eviction import _look
from mempressure.eviction.hollow import HollowModule, is_hollow
from mempressure.eviction.ownership import modules_of
from tests.support.evictable import snapshot


@pytest.fixture
def candidate(evictable):
    gc.collect()
    found = _look(evictable, modules_of(evictable))
    assert isinstance(found, Candidate)
    return found


def state(package):
    return snapshot(package), gc.isenabled(), list(gc.callbacks), list(sys.meta_path)


def test_a_package_is_emptied_and_what_the_candidate_held_given_up(evictable, candidate):
    before = state(evictable)[1:]
    assert empty(evictable, candidate)
    assert candidate.private == []
    assert is_hollow(evictable)
    assert sys.modules[evictable].answer() == 42
    assert state(evictable)[1:] == before


@pytest.mark.parametrize(
    "hold",
    [
        lambda root: root.answer,
        lambda root: root.Refused,
        lambda root: root.Square(1),
        lambda root: root.LIMITS,
        lambda root: vars(root.shapes),
        lambda root: root.registry.NAMES,
    ],
    ids=["function", "class", "instance", "dict", "namespace", "list"],
)
def test_one_reference_taken_since_it_was_looked_at_prevents_it(evictable, candidate, hold):
    held = hold(sys.modules[evictable])
    before = state(evictable)
    assert not empty(evictable, candidate)
    assert state(evictable) == before
    assert not is_hollow(evictable)
    assert len(candidate.private) == 1
    del held
    before = None
    assert empty(evictable, candidate)


def test_what_was_taken_out_of_the_package_since_is_found_though_its_count_is_the_same(evictable):
    root = sys.modules[evictable]
    root.registry.HANDLERS["square"] = root.Square(2)
    gc.collect()
    candidate = _look(evictable, modules_of(evictable))
    held = root.registry.HANDLERS.pop("square")
    count = sys.getrefcount(held)
    assert not empty(evictable, candidate)
    assert (held.side, sys.getrefcount(held)) == (2, count)
    del held
    assert empty(evictable, candidate)


def test_a_module_whose_class_was_changed_since_prevents_it(evictable, candidate, monkeypatch):
    class Other(ModuleType):
        pass

    sys.modules["evictable.shapes"].__class__ = Other
    before = state(evictable)
    assert not empty(evictable, candidate)
    assert state(evictable) == before
    sys.modules["evictable.shapes"].__class__ = ModuleType


@pytest.mark.parametrize("fails_at", range(5))
def test_where_closing_a_module_fails_all_are_open_again(evictable, candidate, monkeypatch, fails_at):
    closed = []

    def failing(module, name, value):
        if len(closed) == fails_at:
            raise MemoryError("at the worst moment")
        closed.append(module)
        object.__setattr__(module, name, value)

    monkeypatch.setattr(emptying, "set_attribute", failing)
    before = state(evictable)
    with pytest.raises(MemoryError, match="at the worst moment"):
        empty(evictable, candidate)
    closed.clear()
    assert state(evictable) == before
    assert not is_hollow(evictable)
    assert sys.modules[evictable].answer() == 42


@pytest.mark.parametrize("name", ["_nothing_outside_refers_to", "register"])
def test_where_an_earlier_part_fails_nothing_is_changed(evictable, candidate, monkeypatch, name):
    def failing(*_, **__):
        raise MemoryError("early")

    monkeypatch.setattr(emptying, name, failing)
    before = state(evictable)
    with pytest.raises(MemoryError, match="early"):
        empty(evictable, candidate)
    assert state(evictable) == before
    assert not is_hollow(evictable)


def test_where_a_part_fails_after_the_doors_were_closed_it_is_carried_to_its_end(evictable, candidate, monkeypatch):
    def failing(registrations):
        def fail(_):
            raise MemoryError("late")

        return chain(map(fail, (1,)))

    monkeypatch.setattr(emptying, "_removed", failing)
    callbacks = list(gc.callbacks)
    assert empty(evictable, candidate)
    assert (gc.isenabled(), gc.callbacks) == (True, callbacks)
    assert is_hollow(evictable)
    assert {type(module) for module in modules_of(evictable).values()} == {HollowModule}
    contents = ModuleType.__getattribute__(sys.modules["evictable.shapes"], "__dict__")
    assert "Square" not in contents
    assert contents["__name__"] == "evictable.shapes"
    assert candidate.private == []
    assert sys.modules[evictable].answer() == 42


def test_an_entry_that_somebody_took_out_meanwhile_is_not_missed(evictable, candidate):
    candidate.registrations.filters.append(([], "gone"))
    assert empty(evictable, candidate)
    assert is_hollow(evictable)
    assert sys.modules[evictable].answer() == 42


def test_a_collection_that_was_turned_off_stays_off(evictable, candidate):
    gc.disable()
    try:
        assert empty(evictable, candidate)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collectors_callbacks_do_not_run_in_the_step_and_are_back_after_it(evictable, candidate):
    called = []

    def callback(phase, info):
        called.append(phase)

    gc.callbacks.append(callback)
    try:
        assert empty(evictable, candidate)
        assert called == []
        assert callback in gc.callbacks
    finally:
        gc.callbacks.remove(callback)
