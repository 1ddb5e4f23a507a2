import pytest

from mempressure_actuator.inbox.leases import Lease
from mempressure_actuator.loop.pressures import Arrivals, pressures

HOST, SHOP = ("host", ""), ("app", "shop")


def lease(scope, level="high"):
    return Lease(scope=scope[0], app=scope[1], level=level, fingerprint=f"f-{level}", starts_at=1, opened=5, expires=99)


@pytest.mark.parametrize(
    ("leases", "held", "reflex", "autonomous", "found"),
    [
        ([], {HOST: 1.0, SHOP: 2.0}, [], False, []),
        ([], {HOST: 1.0, SHOP: 2.0}, [], True, [(HOST, "autonomous", 1.0), (SHOP, "autonomous", 2.0)]),
        ([], {HOST: 1.0, SHOP: 2.0}, [SHOP], False, [(SHOP, "reflex", 2.0)]),
        ([], {SHOP: 2.0}, [SHOP], True, [(SHOP, "autonomous", 2.0)]),
        ([lease(SHOP)], {SHOP: 2.0}, [SHOP], True, [(SHOP, "webhook", 5)]),
        ([lease(SHOP)], {HOST: 1.0}, [HOST], False, [(HOST, "reflex", 1.0), (SHOP, "webhook", 5)]),
        ([], {}, [SHOP], False, []),  # left meanwhile
    ],
)
def test_who_says_that_a_scope_is_under_pressure(leases, held, reflex, autonomous, found):
    said = pressures(leases, held, reflex=reflex, autonomous=autonomous)
    assert [(pressure.key, pressure.trigger, pressure.since) for pressure in said] == found


def test_the_highest_of_a_scopes_leases_speaks_for_it():
    (said,) = pressures([lease(SHOP, "emergency"), lease(SHOP, "warning")], {}, autonomous=False)
    assert (said.alert_level, said.alert_key) == ("emergency", "f-emergency")


def test_the_first_arrival_for_a_scope_counts_until_it_is_taken():
    arrivals = Arrivals()
    arrivals.add([SHOP], 1.0)
    arrivals.add([SHOP, HOST], 2.0)
    assert arrivals.count == 2
    assert arrivals.take() == {SHOP: 1.0, HOST: 2.0}
    assert (arrivals.count, arrivals.take()) == (0, {})
