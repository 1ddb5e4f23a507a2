import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.http.messages import Headers, Request, Response
from mempressure.http.rate import RateLimit, parse_duration, rate_limited


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("1h30m", 5400), ("1.5s", 1.5), ("100ms", 0.1), ("0", 0), (0, 0), ("5us", 5e-6), (".5m", 30)],
)
def test_durations_are_gos(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1 s", "1d", 1, None, True, False, "1s!", ["1s"]])
def test_what_is_no_duration(text):
    assert parse_duration(text) is None


@given(st.lists(st.floats(0, 5), max_size=50), st.integers(1, 5), st.floats(0.1, 3))
def test_never_more_pass_than_the_burst_and_one_an_interval(gaps, burst, interval):
    now = 0.0
    limit = RateLimit(interval=interval, burst=burst, clock=lambda: now)
    passed = 0
    for gap in gaps:
        now += gap
        passed += limit.allows()
        assert passed <= burst + now / interval + 1e-6


def test_a_burst_passes_and_then_one_an_interval():
    now = 0.0
    limit = RateLimit(interval=1.0, burst=2, clock=lambda: now)
    assert [limit.allows() for _ in range(3)] == [True, True, False]
    now = 1.0
    assert [limit.allows() for _ in range(2)] == [True, False]


def test_who_asks_too_often_gets_429_and_who_tells_503():
    limit = RateLimit(interval=1.0, burst=1, clock=lambda: 0.0)
    answer = rate_limited(lambda _: Response(200, "text/plain", b""), lambda: limit)
    statuses = [answer(Request(method, "/", "", Headers())).status for method in ("GET", "GET", "HEAD", "POST")]
    assert statuses == [200, 429, 429, 503]
