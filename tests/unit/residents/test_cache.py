"""Caches: like functools.lru_cache, and giving their entries back."""

import copy
import functools
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mempressure.loader import LazyLoader
from mempressure.residents import load_cost
from mempressure.residents.cache import Cache
from tests.support.doubles.clock import Clock
from tests.support.forking import in_child
from tests.support.functions import resident_functions


def reclaim(dropped, *, expected):
    dropped.clear()
    return expected


@pytest.fixture
def clock():
    return Clock(1_000_000.0)


@pytest.fixture
def cache(clock):
    """A builder of caches, of a function that returns what it is given by default."""

    def build(function=lambda *args, **kwargs: (args, kwargs), **options):
        given = {"name": "shop.cache", "timeout": 60.0, "clock": clock, "reclaim": reclaim}
        return Cache(function, **given | options)

    return build


def numbers(*args, **kwargs):
    return (args, kwargs)


ARGUMENTS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=40)


LATEST = [(number, False, False) for number in (0, 1, 2, 0, 3, 0, 1)]
"""Calls by which what was used last differs from what was made last, with three entries."""


@example(LATEST, 3, False)
@given(ARGUMENTS, st.sampled_from([None, 0, 1, 3, -1]), st.booleans())
def test_it_answers_as_lru_cache_does(calls, maxsize, typed):
    ours = Cache(numbers, name="ours", timeout=60.0, maxsize=maxsize, typed=typed)
    theirs = functools.lru_cache(maxsize=maxsize, typed=typed)(numbers)
    for number, named, real in calls:
        value = float(number) if real else number
        arguments = ((), {"n": value}) if named else ((value,), {})
        assert repr(ours(*arguments[0], **arguments[1])) == repr(theirs(*arguments[0], **arguments[1]))
        assert tuple(ours.cache_info()) == tuple(theirs.cache_info())
    assert ours.cache_parameters() == theirs.cache_parameters()
    ours.cache_clear()
    theirs.cache_clear()
    assert tuple(ours.cache_info()) == tuple(theirs.cache_info())


def test_arguments_cannot_be_mistaken_for_named_ones(cache):
    cached = cache()
    assert cached(("n", 1)) != cached(n=1)
    assert cached(1, 2) != cached((1, 2))


def test_an_error_is_not_kept(cache):
    answers = [OSError("once"), None]

    def function():
        if error := answers.pop(0):
            raise error
        return "answer"

    cached = cache(function)
    with pytest.raises(OSError, match="once"):
        cached()
    assert (cached(), cached.cache_info().misses, cached.active_calls) == ("answer", 2, 0)


def test_what_cannot_be_hashed_is_refused_as_lru_cache_does(cache):
    with pytest.raises(TypeError, match="unhashable"):
        cache()([])


def test_it_serves_as_a_method():
    class Shop:
        factor = 3

        @LazyLoader(with_agent=False).cache
        def times(self, number):
            return self.factor * number

    shop = Shop()
    assert (shop.times(2), shop.times(2)) == (6, 6)
    assert Shop.times.cache_info().hits == 1


def test_entries_that_are_not_used_are_dropped_one_by_one(cache, clock):
    cached = cache()
    cached("old")
    cached("used")
    clock.now += 50
    cached("used")
    assert not cached.is_idle()
    clock.now += 10
    assert cached.is_idle()
    cached.release_idle()
    assert cached.cache_info().currsize == 1
    assert (cached.unloads, cached.loaded, cached.unloaded_at) == (1, True, None)
    clock.now += 50
    assert cached.is_idle()
    cached.release_idle()
    assert (cached.loaded, cached.unloaded_at) == (False, clock.now)


def test_idle_entries_are_not_looked_for_more_than_four_times_a_timeout(cache, clock):
    cached = cache()
    cached(1)
    clock.now += 1
    cached(2)
    clock.now += 59
    cached.release_idle()
    clock.now += 14
    assert not cached.is_idle()
    clock.now += 1
    assert cached.is_idle()


def test_all_entries_are_let_go_at_once(cache, clock):
    cached = cache()
    kept = cached(1)
    cached(2)
    cached.size_bytes = 100
    assert cached.release(idle_for=5.0).skipped_reason == "used 0.0 s ago"
    assert cached.release() == (100, None)
    assert (cached.cache_info().currsize, cached.size_bytes, kept) == (0, 0, ((1,), {}))
    assert cached.release().skipped_reason == "not loaded"
    clock.now += 1
    cached(1)
    assert (cached.loads, cached.refaults) == (2, 1)


def test_what_is_published_of_it(cache):
    cached = cache()
    cached(1)
    cached(1)
    cached(2)
    cached.size_bytes = 5
    state = cached.state()
    assert (state.source, state.mechanism, state.loaded, state.memory_bytes) == ("resident", "release", 1, 5)
    assert (state.uses, state.loads) == (3, 1)


def test_threads_get_right_answers(cache):
    cached, gate = cache(lambda number: number**2, maxsize=10), threading.Barrier(8)

    def work(seed):
        order = random.Random(seed)
        gate.wait()
        for _ in range(2000):
            number = order.randrange(20)
            assert cached(number) == number**2

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    info = cached.cache_info()
    assert (info.hits + info.misses, info.currsize, cached.active_calls) == (16_000, 10, 0)


def test_entries_of_the_parent_serve_a_child_and_stay(cache):
    cached = cache(maxsize=2)
    cached(1)
    cached.size_bytes = 9

    def check():
        cached(1)
        assert cached.cache_info().hits == 1
        assert (cached.state().source, cached.state().memory_bytes) == ("parent", 9)
        assert "loaded before the fork" in cached.release().skipped_reason
        cached(2)
        cached.size_bytes = 4
        assert (cached.state().source, cached.state().memory_bytes) == ("resident", 4)
        assert cached.cache_info().currsize == 2
        assert cached.release() == (4, None)
        assert cached.cache_info().currsize == 1
        cached.cache_clear()
        assert cached.cache_info() == (0, 0, 2, 0)

    def grandchild():
        before = cached.cache_info()
        assert (cached(1), cached(2)) == (((1,), {}), ((2,), {}))
        assert (cached.cache_info().hits - before.hits, cached.cache_info().currsize) == (2, 2)

    in_child(check)
    in_child(lambda: (cached(2), in_child(grandchild)))
    assert cached.cache_info() == (0, 1, 2, 1)


def test_the_size_of_entries_is_what_memory_grew_by_while_they_were_made(cache, monkeypatch):
    held = [100]
    monkeypatch.setattr(load_cost, "anonymous_bytes", lambda: held[0])

    def made(growth):
        held[0] += growth
        return growth

    cached = cache(made, maxsize=2)
    cached(50)
    cached(70)
    assert cached.size_bytes == 120
    cached(-30)  # takes the place of one that was larger
    assert cached.size_bytes == 90
    cached.release()
    assert cached.size_bytes == 0


def test_misses_that_overlap_count_as_those_before(cache, monkeypatch):
    held = [100]
    monkeypatch.setattr(load_cost, "anonymous_bytes", lambda: held[0])

    def made(number):
        held[0] += 10
        if number > 1:
            cached(number - 1)
        return number

    cached = cache(made)
    cached(1)
    assert cached.size_bytes == 10
    cached(3)  # within which 2 is missed
    assert cached.size_bytes == 30


def test_it_is_copied_and_pickled_by_name_and_looks_like_its_function():
    squared = resident_functions.squared
    assert pickle.loads(pickle.dumps(squared)) is squared  # noqa: S301 -- what was just dumped
    assert copy.copy(squared) is squared
    assert (squared.__name__, squared.__doc__) == ("squared", "Return the square.")
    assert repr(squared) == "<cache 'tests.support.functions.resident_functions.squared' of 0 entries>"
