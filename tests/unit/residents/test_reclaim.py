"""What dropping objects gives back, measured on real memory."""

import gc

import pytest

from mempressure.act.trim import release_free_pages
from mempressure.residents import reclaim as module
from mempressure.residents.reclaim import reclaim

MIB = 1 << 20
SIZE = 48 * MIB
"""So much is mapped by malloc itself, and returned when it is freed."""


class Node:
    """Refers to itself, with much memory."""

    def __init__(self):
        self.me = self
        self.data = bytearray(b"x") * SIZE


@pytest.fixture
def collections(monkeypatch):
    """The list of garbage collections that were made; the collector makes none by itself."""
    made = []
    collect = gc.collect
    collect()
    release_free_pages()  # what earlier tests of this process have left would count as given back
    monkeypatch.setattr(module.gc, "collect", lambda: made.append(1) or collect())
    gc.disable()
    yield made
    gc.enable()


def test_what_no_cycle_holds_comes_back_without_a_collection(collections):
    dropped = [bytearray(b"x") * SIZE]
    assert 45 * MIB < reclaim(dropped, expected=SIZE) < 51 * MIB
    assert (dropped, collections) == ([], [])


def test_what_holds_itself_is_collected(collections):
    assert 45 * MIB < reclaim([Node()], expected=SIZE) < 51 * MIB
    assert collections == [1]


def test_never_in_a_worker_that_was_forked_from_a_loaded_parent(collections, monkeypatch):
    monkeypatch.setattr(module, "forked_from_loaded_parent", lambda: True)
    assert reclaim([Node()], expected=SIZE) < 5 * MIB
    assert collections == []


def test_not_for_little(collections):
    reclaim([object()], expected=MIB - 1)
    assert collections == []


def test_free_pages_are_kept_where_a_trim_is_refused(monkeypatch):
    monkeypatch.setattr(module.self_check, "check_trim", lambda _: "forked from a loaded parent")
    monkeypatch.setattr(module, "release_free_pages", lambda: pytest.fail("returned pages"))
    reclaim([object()], expected=0)


def test_what_cannot_be_measured_is_dropped_all_the_same(monkeypatch):
    def missing():
        raise ProcessLookupError

    monkeypatch.setattr(module, "private_bytes", missing)
    dropped = [object()]
    assert (reclaim(dropped, expected=SIZE), dropped) == (0, [])
