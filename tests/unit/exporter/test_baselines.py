import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure_exporter import baselines
from mempressure_exporter.baselines import RETAIN_SECONDS, Baselines


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_BASELINES", 3)


def look(known, keys, now, *, counts=(5.0,)):
    """One scrape; return what each stood at before."""
    found = {key: known.before(key, counts, first=(0.0,), now=now) for key in keys}
    known.forget(now)
    return found


def test_who_is_there_is_never_counted_again_however_many_come():
    known = Baselines()
    assert look(known, ["a"], 1.0) == {"a": (0.0,)}
    for now in (2.0, 3.0, 4.0):
        found = look(known, ["a", *range(100)], now)
        assert found["a"] == (5.0,)
        assert len(known._seen) <= 3
    assert look(known, ["a"], 5.0, counts=(6.0,)) == {"a": (5.0,)}


def test_of_newcomers_for_whom_there_is_no_room_no_increase_is_seen():
    known = Baselines()
    assert look(known, "abcd", 1.0) == {"a": (0.0,), "b": (0.0,), "c": (0.0,), "d": (5.0,)}
    assert look(known, "abcd", 2.0, counts=(7.0,)) == {"a": (5.0,), "b": (5.0,), "c": (5.0,), "d": (7.0,)}


def test_a_newcomer_takes_the_place_of_who_is_gone_for_longest():
    known = Baselines()
    look(known, "abc", 1.0)
    look(known, "ab", 2.0)
    assert look(known, "abd", 3.0) == {"a": (5.0,), "b": (5.0,), "d": (0.0,)}
    assert list(known._seen) == ["a", "b", "d"]


def test_who_is_gone_for_long_is_forgotten():
    known = Baselines()
    look(known, "ab", 1.0)
    look(known, "a", RETAIN_SECONDS)
    look(known, "a", RETAIN_SECONDS + 1)
    assert list(known._seen) == ["a"]


@given(st.lists(st.sets(st.sampled_from("abcdef")), max_size=10))
def test_the_bound_holds_whoever_comes_and_goes(steps):
    known = Baselines()
    for now, keys in enumerate(steps):
        look(known, sorted(keys), float(now))
        assert len(known._seen) <= 3
