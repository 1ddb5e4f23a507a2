from types import SimpleNamespace

import pytest

from mempressure.measure.memory_reading import MemoryReading
from mempressure_actuator.store.usage_history import KEPT_SECONDS, MAX_SCOPES, SAMPLE_SECONDS, UsageHistory

HOST = ("host", "")
NOON = 43200.0


def observed(when, usage=0.5, *, scope="host", app=""):
    memory = None if usage is None else MemoryReading(total=1000, available=round(1000 * (1 - usage)))
    return SimpleNamespace(sampled=when, scopes=(SimpleNamespace(scope=scope, app=app, memory=memory),))


def noted(*observations):
    history = UsageHistory()
    for observation in observations:
        history.note(observation)
    return history


def test_an_interval_keeps_its_highest_usage():
    history = noted(observed(NOON, 0.4), observed(NOON + 1, 0.9), observed(NOON + 14.9, 0.5), observed(NOON + 15, 0.3))
    assert history.samples(HOST, now=NOON + 15) == ((NOON, 0.9), (NOON + 15, 0.3))


def test_an_hour_is_kept_and_no_more():
    history = noted(*(observed(NOON + second, 0.5) for second in range(0, 2 * 3600, 5)))
    end = NOON + 2 * 3600 - 5
    samples = history.samples(HOST, now=end)
    assert end - KEPT_SECONDS - SAMPLE_SECONDS < samples[0][0] <= end - KEPT_SECONDS + SAMPLE_SECONDS
    assert len(samples) <= KEPT_SECONDS / SAMPLE_SECONDS + 1
    assert history.samples(HOST, now=end + 2 * KEPT_SECONDS) == ()


def test_an_app_that_is_gone_is_shown_until_its_hour_is_over_and_then_forgotten():
    history = noted(observed(NOON, scope="app", app="shop"), observed(NOON + 600))
    assert history.samples(("app", "shop"), now=NOON + 600)
    history.note(observed(NOON + KEPT_SECONDS + SAMPLE_SECONDS))
    assert ("app", "shop") not in history._scopes


def test_an_app_without_a_limit_has_no_usage():
    assert noted(observed(NOON, None, scope="app", app="shop")).samples(("app", "shop"), now=NOON) == ()


def test_apps_are_bounded():
    history = noted(*(observed(NOON, scope="app", app=f"a{number}") for number in range(MAX_SCOPES + 5)))
    assert len(history._scopes) == MAX_SCOPES


@pytest.mark.parametrize("back", [100.0, 3 * 3600.0])
def test_a_clock_that_is_set_back_leaves_nothing_in_the_future(back):
    early = NOON - back
    history = noted(observed(early, 0.2), observed(NOON, 0.8), observed(early + 30, 0.3))
    assert [usage for _, usage in history.samples(HOST, now=early + 30)] == [0.2, 0.3]


def test_another_thread_that_comes_late_changes_nothing():
    history = noted(observed(NOON + 15, 0.8), observed(NOON + 14, 0.3))
    assert history.samples(HOST, now=NOON + 15) == ((NOON + 15, 0.8),)
