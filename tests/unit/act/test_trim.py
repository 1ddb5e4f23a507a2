import gc

from mempressure.act.trim import trim
from tests.support.forking import in_child


def test_garbage_is_given_back_and_measured():
    gc.disable()
    try:
        # Cycles of 40 MB that only the collector can free.
        for _ in range(40):
            cycle = [bytearray(1 << 20)]
            cycle.append(cycle)
        del cycle
        trimmed = trim()
    finally:
        gc.enable()
    assert trimmed.freed > 30 << 20
    assert trimmed.unshared == 0


def test_pages_that_a_trim_unshares_are_told_from_what_others_allocate(monkeypatch):
    """In a child forked from a parent with much garbage-collected memory; and in a process that shares nothing."""
    held = [[] for _ in range(400_000)]  # 40 MB of what a collection writes to

    def check():
        trimmed = trim()
        assert trimmed.unshared > 10 << 20, trimmed
        kept = []
        monkeypatch.setattr("mempressure.act.trim.release_free_pages", lambda: kept.append(bytearray(20 << 20)))
        trimmed = trim()
        assert trimmed.freed < -(15 << 20)
        assert trimmed.unshared < 1 << 20

    gc.collect()
    in_child(check)
    assert len(held) == 400_000
