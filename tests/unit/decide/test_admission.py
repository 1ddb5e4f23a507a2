import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.decide.admission import Idle, ScopeMemory, decide, free_bytes

SHOP = ScopeMemory("app 'shop'", 1000, 600)
HOST = ScopeMemory("the host", 10_000, 5000)
IDLE = (Idle("a", 100), Idle("b", 50), Idle("c", 300))


def decided(cost, *, scopes=(HOST, SHOP), reserved=0, idle=()):
    return decide(cost, scopes=scopes, reserved=reserved, emergency=0.9, idle=idle)


@pytest.mark.parametrize(
    ("cost", "reserved", "admitted"),
    [(299, 0, True), (300, 0, False), (199, 100, True), (200, 100, False), (0, 300, False)],
)
def test_a_load_may_take_what_is_left_below_emergency_and_unreserved(cost, reserved, admitted):
    assert decided(cost, reserved=reserved).admitted is admitted


def test_every_scope_must_have_room():
    full = ScopeMemory("the host", 10_000, 8950)
    admission = decided(100, scopes=(full, SHOP))
    assert (admission.admitted, admission.tightest, admission.free) == (False, full, 49)
    assert not decided(100, scopes=(SHOP, full)).admitted


def test_where_nothing_was_measured_nothing_is_refused():
    assert decided(10**18, scopes=()).admitted


@pytest.mark.parametrize(
    ("cost", "unload"),
    [
        (299, ()),
        (300, ("a",)),
        (399, ("a",)),
        (400, ("a", "b")),
        (449, ("a", "b")),
        (450, ("c",)),
        (599, ("c",)),
        (600, ("a", "c")),
        (749, ("a", "b", "c")),
        (750, ()),
    ],
)
def test_as_few_go_as_make_room_and_none_where_all_would_not(cost, unload):
    admission = decided(cost, idle=IDLE)
    assert admission.unload == unload
    assert admission.admitted is (cost < 300)


sizes = st.integers(0, 2000)
scopes = st.lists(st.builds(ScopeMemory, st.just("x"), st.integers(1, 5000), st.integers(0, 6000)), max_size=3)
idles = st.lists(st.builds(Idle, st.sampled_from("abcdef"), sizes), max_size=6, unique_by=lambda idle: idle.name)


@given(sizes, scopes, sizes, st.floats(0.01, 1), idles)
def test_what_no_decision_ever_does(cost, scopes, reserved, emergency, idle):
    admission = decide(cost, scopes=scopes, reserved=reserved, emergency=emergency, idle=idle)
    if admission.admitted:
        assert admission.unload == ()
        assert all((scope.used + reserved + cost) / scope.total < emergency + 1e-9 for scope in scopes)
        return
    assert any(scope.used + reserved + cost >= emergency * scope.total for scope in scopes)
    size = {package.name: package.size for package in idle}
    freed = [size[name] for name in admission.unload]
    if freed:  # enough, and each of them needed
        assert admission.free + sum(freed) >= cost
        assert all(admission.free + sum(freed) - one < cost for one in freed)
    else:
        assert admission.free + sum(size.values()) < cost


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.floats(0.01, 1))
def test_what_is_free_stays_below_emergency_and_a_byte_more_does_not(total, used, emergency):
    free = free_bytes(ScopeMemory("x", total, used), reserved=0, emergency=emergency)
    assert used + free < emergency * total <= used + free + 1
