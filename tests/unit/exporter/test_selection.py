import argparse

import pytest

from mempressure_exporter import selection
from mempressure_exporter.collectors import COLLECTORS
from mempressure_exporter.selection import SelectionError, requested

ALL = set(COLLECTORS)


def enabled(*flags):
    parser = argparse.ArgumentParser()
    selection.add_arguments(parser)
    return set(selection.enabled(parser.parse_args(flags)))


@pytest.mark.parametrize(
    ("flags", "left"),
    [
        ((), ALL),
        (("--no-collector.apps",), ALL - {"apps"}),
        (("--collector.apps",), ALL),
        (("--collector.disable-defaults",), set()),
        (("--collector.disable-defaults", "--collector.host", "--collector.pressure"), {"host", "pressure"}),
        (("--collector.host", "--collector.disable-defaults", "--no-collector.apps"), {"host"}),
        (("--no-collector.apps", "--collector.apps"), ALL),  # the last word holds
    ],
)
def test_flags(flags, left):
    assert enabled(*flags) == left


ON = ("host", "apps", "exporter")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", set(ON)),
        ("something=else", set(ON)),
        ("collect[]=host", {"host"}),
        ("collect%5B%5D=host&collect%5B%5D=apps", {"host", "apps"}),
        ("collect[]=host&collect[]=host", {"host"}),
        ("exclude[]=host", {"apps", "exporter"}),
        ("exclude[]=host&exclude[]=apps&exclude[]=exporter", set()),
        # As in node_exporter: what is not there need not be excluded.
        ("exclude[]=packages", set(ON)),
        ("exclude[]=nothing", set(ON)),
    ],
)
def test_queries(query, found):
    assert set(requested(query, enabled=ON)) == found


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("collect[]=nothing", "missing collector: 'nothing'"),
        ("collect[]=", "missing collector: ''"),
        ("collect[]=packages", "disabled collector: 'packages'; send one of host, apps, exporter"),
        ("collect[]=host&collect[]=nothing", "missing collector: 'nothing'"),
        ("collect[]=host,apps", "missing collector: 'host,apps'"),
        ("collect[]=host&exclude[]=apps", "cannot be combined"),
    ],
)
def test_queries_that_cannot_be_answered(query, named):
    with pytest.raises(SelectionError) as raised:
        requested(query, enabled=ON)
    assert named in str(raised.value)
