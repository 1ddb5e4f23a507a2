import argparse

import pytest

from mempressure.command.arguments import seconds


@pytest.mark.parametrize(("text", "expected"), [("0.1", 0.1), ("2", 2.0), ("86400", 86400.0)])
def test_seconds_from_a_tenth_to_a_day_are_taken(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0.09", "-1", "86401", "nan", "inf", "1 s", "x" * 1000])
def test_others_are_refused_by_name(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"cannot be used; send seconds from 0\.1 to 86400") as refused:
        seconds(text)
    assert len(str(refused.value)) < 120
