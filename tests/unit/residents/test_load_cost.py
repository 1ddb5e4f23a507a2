"""What a load took: without the loads within it."""

from mempressure.residents import load_cost
from mempressure.residents.load_cost import LoadCost


def test_growth_and_time_of_a_load(monkeypatch):
    held = iter((100, 130, 130, 50))
    monkeypatch.setattr(load_cost, "anonymous_bytes", lambda: next(held))
    with LoadCost() as cost:
        pass
    assert (cost.growth, 0 < cost.seconds < 10) == (30, True)
    with LoadCost() as cost:
        pass
    assert cost.growth == -80


def test_loads_within_it_are_not_its_own(monkeypatch):
    held = [0]
    monkeypatch.setattr(load_cost, "anonymous_bytes", lambda: held[0])
    with LoadCost() as outer:
        held[0] += 1
        with LoadCost() as first:
            held[0] += 10
            with LoadCost() as inner:
                held[0] += 100
        with LoadCost() as second:
            held[0] += 1000
    assert (outer.growth, first.growth, inner.growth, second.growth) == (1, 10, 100, 1000)


def test_without_proc_it_is_nothing(monkeypatch):
    def missing():
        raise ProcessLookupError

    monkeypatch.setattr(load_cost, "anonymous_bytes", missing)
    with LoadCost() as cost:
        pass
    assert cost.growth == 0
