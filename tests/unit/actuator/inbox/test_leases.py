from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mempressure_actuator.inbox.leases import MAX_LEASES, Lease, changed, live
from mempressure_actuator.inbox.notification import PressureAlert

KEY = ("app", "shop", "high")


def alert(**options):
    defaults = {"scope": "app", "app": "shop", "level": "high", "firing": True, "fingerprint": "f1", "starts_at": 50.0}
    return PressureAlert(**{**defaults, **options})


def after(leases, *alerts, now=100.0, seconds=150.0):
    return changed(leases, alerts, now=now, seconds=seconds)


def test_a_firing_alert_opens_a_lease():
    (lease,) = after({}, alert()).values()
    assert lease == Lease(
        scope="app", app="shop", level="high", fingerprint="f1", starts_at=50.0, opened=100.0, expires=250.0
    )
    assert lease.key == KEY


def test_a_duplicate_renews_the_same_lease():
    leases = after(after({}, alert()), alert(), now=160.0)
    assert list(leases) == [KEY]
    assert (leases[KEY].opened, leases[KEY].expires) == (100.0, 310.0)


def test_scope_app_and_level_make_a_lease():
    leases = after({}, alert(), alert(level="medium"), alert(app="till"), alert(scope="host", app=""), alert())
    assert len(leases) == 4


def test_a_lease_expires_unless_renewed():
    leases = after({}, alert())
    assert live(leases, now=249.9, seconds=150.0) == leases
    assert live(leases, now=250.0, seconds=150.0) == {}
    assert list(after(leases, alert(app="till"), now=250.0)) == [("app", "till", "high")]


def test_a_resolved_alert_ends_its_lease_and_no_other():
    leases = after({}, alert(), alert(level="medium", fingerprint="f2"))
    assert list(after(leases, alert(firing=False))) == [("app", "shop", "medium")]


def test_the_end_of_an_earlier_episode_does_not_end_this_one():
    leases = after({}, alert(starts_at=80.0))
    assert after(leases, alert(firing=False, starts_at=50.0)) == leases
    assert after(leases, alert(firing=False, starts_at=80.0)) == {}


def test_the_end_of_another_alert_does_not_end_it():
    leases = after({}, alert())
    assert after(leases, alert(firing=False, fingerprint="other")) == leases


def test_a_late_duplicate_does_not_make_a_lease_older():
    leases = after(after({}, alert(starts_at=80.0)), alert(starts_at=50.0))
    assert leases[KEY].starts_at == 80.0


def test_another_alert_for_the_same_scope_takes_the_lease_over():
    leases = after(after({}, alert(starts_at=80.0)), alert(fingerprint="f2", starts_at=60.0))
    assert (leases[KEY].fingerprint, leases[KEY].starts_at) == ("f2", 60.0)


def test_resolved_and_firing_hold_in_their_order():
    assert after({}, alert(), alert(firing=False)) == {}
    assert list(after({}, alert(firing=False), alert())) == [KEY]


def test_a_clock_that_was_set_back_does_not_make_a_lease_last():
    leases = after({}, alert(), now=1e6)
    assert live(leases, now=100.0, seconds=150.0)[KEY].expires == 250.0


def test_nothing_is_changed_in_place():
    leases = after({}, alert())
    before = dict(leases)
    after(leases, alert(firing=False), now=200.0)
    live(leases, now=1000.0, seconds=1.0)
    assert leases == before


alerts = st.builds(
    alert,
    app=st.sampled_from(["shop", "till"]),
    level=st.sampled_from(["medium", "high"]),
    firing=st.booleans(),
    fingerprint=st.sampled_from(["f1", "f2"]),
    starts_at=st.floats(0, 1000),
)


@given(st.lists(st.tuples(alerts, st.floats(0, 100)), max_size=30), st.floats(1, 300))
def test_whatever_arrives_a_lease_is_of_a_firing_alert_received_lately(arrivals, seconds):
    leases, now, fired = {}, 0.0, {}
    for given_alert, pause in arrivals:
        now += pause
        leases = changed(leases, [given_alert], now=now, seconds=seconds)
        key = (given_alert.scope, given_alert.app, given_alert.level)
        if given_alert.firing:
            fired[key] = now
            assert key in leases
        for key, lease in leases.items():
            assert lease.key == key
            assert lease.expires == fired[key] + seconds
            assert lease.opened <= now < lease.expires
        assert changed(leases, [], now=now, seconds=seconds) == leases
        if given_alert.firing:
            again = changed(leases, [given_alert], now=now, seconds=seconds)
            assert again == {**leases, **{k: replace(v) for k, v in leases.items()}}


def test_leases_are_bounded_and_the_latest_stay():
    leases = after({}, *(alert(app=f"a{number}") for number in range(MAX_LEASES)))
    assert len(leases) == MAX_LEASES
    leases = after(leases, alert(app="new"), now=101.0)
    assert len(leases) == MAX_LEASES
    assert leases["app", "new", "high"].expires == 251.0
