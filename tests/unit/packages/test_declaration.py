import math

import pytest

from mempressure.errors import ConfigurationError
from mempressure.packages.declaration import (
    checked_flag,
    checked_name,
    checked_priority,
    checked_start_timeout,
    checked_timeout,
    imported_already,
)


@pytest.mark.parametrize("name", ["pandas", "matplotlib.pyplot", "_private"])
def test_absolute_names_are_taken(name):
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", ".pandas", "pandas.", "pan das", "pandas/core", "2to3", None, 5, b"pandas"])
def test_other_names_are_refused(name):
    with pytest.raises(ConfigurationError, match="send an absolute one"):
        checked_name(name)


@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_flags_are_true_or_false(value):
    assert checked_flag("keep_loaded", value=True) is True
    with pytest.raises(ConfigurationError, match=f"keep_loaded={value!r}.*True or False"):
        checked_flag("keep_loaded", value)


@pytest.mark.parametrize("value", [1.0, True, "1", None])
def test_priorities_are_whole_numbers(value):
    assert checked_priority(-3) == -3
    with pytest.raises(ConfigurationError, match="whole number"):
        checked_priority(value)


@pytest.mark.parametrize("check", [checked_timeout, checked_start_timeout])
def test_seconds_have_a_default_and_a_range(check):
    assert check(None, default=60) == 60.0
    assert check(5, default=60) == 5.0
    for value in (-1, math.nan, math.inf, True, "5", 1e10):
        with pytest.raises(ConfigurationError, match="cannot be used; send seconds"):
            check(value, default=60)


def test_a_package_may_be_idle_at_once_but_no_process_starts_at_once():
    assert checked_timeout(0, default=60) == 0.0
    with pytest.raises(ConfigurationError, match="above 0"):
        checked_start_timeout(0, default=60)


def test_who_imported_a_package_is_told_the_ways_out():
    text = str(imported_already("pandas"))
    assert "'pandas'" in text
    assert "allow_imported=True" in text
