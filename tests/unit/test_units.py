import pytest

from mempressure.units import duration, moment, part, share, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (-1, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1023, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (70.04 * (1 << 20), "70.0 MiB"),
        ((1 << 30) - 1, "1.0 GiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_sizes(value, text):
    assert size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-1, "-"),
        (0.08, "80 ms"),
        (0.9996, "1.0 s"),
        (9.9, "9.9 s"),
        (9.96, "10 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (12000, "3 h 20 min"),
        (86400 * 2 + 3600, "2 d 1 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_shares_and_parts(monkeypatch):
    assert (share(None), share(0.6234)) == ("-", "62.3 %")
    assert part(1 << 20, None) == "1.0 MiB"
    assert part(100 << 20, 1 << 30) == "0.1 of 1.0 GiB"
    assert part(0, 0) == "0 of 0 B"


def test_a_moment_is_told_in_the_time_of_this_machine():
    assert moment(1795378453.9)[:4] == "2026"
    assert len(moment(0)) == len("2026-11-22 20:05:18")
