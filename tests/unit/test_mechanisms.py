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
        (("callbacks",), "callbacks"),
        (("trim", "callbacks"), "trim"),
        (("stop", "recycle"), "recycle"),
        (("stop", "release"), "release"),
        (("recycle", "release"), "recycle"),
        (("zap", "stop"), "stop"),
        (("trim", "stop"), "stop"),
        (("stop", "trim"), "stop"),
    ],
)
def test_the_least_mild_mechanism(given, found):
    assert least_mild(given) == found


def test_they_are_named_mildest_first():
    assert NAMES == ("callbacks", "trim", "stop", "release", "recycle")
    assert tuple(each.name for each in mechanisms()) == NAMES


def test_each_is_found_by_its_name():
    assert [mechanism(name).name for name in NAMES] == list(NAMES)


def test_only_what_unloads_packages_is_rehearsed():
    assert [each.name for each in mechanisms() if each.unloads_packages] == ["stop", "release", "recycle"]
    assert [each.name for each in rehearsed_mechanisms()] == ["stop", "recycle"]


def test_only_callbacks_ignore_pauses_and_are_called_in_all_workers_at_once():
    assert [each.name for each in mechanisms() if each.ignores_pauses] == ["callbacks"]
    assert [each.name for each in mechanisms() if each.acts_at_once] == ["callbacks"]


def test_only_recycling_ends_a_worker_and_only_stopping_leaves_workers_untouched():
    assert [each.name for each in mechanisms() if each.replaces_worker] == ["recycle"]
    assert [each.name for each in mechanisms() if each.ordered_for_package] == ["stop", "release"]
    assert [each.name for each in mechanisms() if each.acts_below_unloading] == ["stop"]
