"""The registry's names and their order; what each mechanism does is tested with what uses it."""

import pytest

from mempressure.act.mechanisms import mechanism, mechanisms, rehearsed_mechanisms
from mempressure.mechanisms import NAMES, least_mild


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((), ""),
        (("", ""), ""),
        (("stop", ""), "stop"),
        (("recycle", "trim", "stop"), "recycle"),
        (("stop", "recycle"), "recycle"),
        (("zap", "stop"), "stop"),
        (("trim", "stop"), "stop"),
        (("stop", "trim"), "stop"),
    ],
)
def test_the_least_mild_mechanism(given, found):
    assert least_mild(given) == found


def test_they_are_named_mildest_first():
    assert NAMES == ("trim", "stop", "recycle")
    assert tuple(each.name for each in mechanisms()) == NAMES


def test_each_is_found_by_its_name():
    assert [mechanism(name).name for name in NAMES] == list(NAMES)


def test_trimming_unloads_no_package_and_is_not_rehearsed():
    assert [each.name for each in rehearsed_mechanisms()] == ["stop", "recycle"]


def test_only_recycling_ends_a_worker_and_only_stopping_leaves_workers_untouched():
    assert [each.name for each in mechanisms() if each.replaces_worker] == ["recycle"]
    assert [each.name for each in mechanisms() if each.acts_below_unloading] == ["stop"]
