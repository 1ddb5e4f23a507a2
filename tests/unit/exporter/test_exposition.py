import math
from pathlib import Path
from types import SimpleNamespace

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from mempressure_exporter import exposition
from mempressure_exporter.exposition import Exposition, Format, number
from mempressure_exporter.metrics import FAMILIES, Family

PLAIN = Family("plain_ratio", "gauge", "A help with \\ and\na line end.")
LABELLED = Family("labelled_bytes", "gauge", 'A help with "quotes".', ("zone", "app"))
COUNTED = Family("things_total", "counter", "Things.", ("app",))

# Names in state files are any JSON string; prometheus_client refuses only what has no UTF-8.
labels = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.floats() | st.integers(-(2**62), 2**62) | st.booleans()


def written_by_prometheus_client(samples, form=Format.TEXT):
    """Return what prometheus_client writes for the same samples, the families in the order of their first sample."""
    kinds = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
    found = {}
    for family in (PLAIN, LABELLED, COUNTED, *FAMILIES):
        for name, label_values, value in samples:
            if name == family.name:
                if name not in found:
                    found[name] = kinds[family.kind](name, family.help, labels=family.labels)
                found[name].add_metric(label_values, value)
    write = openmetrics.generate_latest if form is Format.OPENMETRICS else prometheus_client.generate_latest
    return write(SimpleNamespace(collect=found.values))


@given(values)
def test_numbers_are_written_as_prometheus_client_writes_them(value):
    assert number(value) == floatToGoString(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0"),
        (True, "1.0"),
        (-1234567.0, "-1234567.0"),
        (999999.5, "999999.5"),
        (1e6, "1e+06"),
        (1048576, "1.048576e+06"),
        (10**7, "1e+07"),
        (123456789.125, "1.23456789125e+08"),
        (1795364427.25, "1.79536442725e+09"),
        (1e16, "1e+16"),
        (1.5e300, "1.5e+300"),
        (1e-7, "1e-07"),
        (0.1, "0.1"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text == floatToGoString(value)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("plain_ratio"), st.just(()), values),
            st.tuples(st.just("labelled_bytes"), st.tuples(labels, labels), values),
            st.tuples(st.just("things_total"), st.tuples(labels), values),
        ),
        max_size=20,
    )
)
def test_both_formats_are_prometheus_clients_byte_for_byte(samples):
    writer = Exposition([PLAIN, LABELLED, COUNTED])
    for form in (*Format, *Format):  # the second time with what was kept
        assert writer.render(samples, form) == written_by_prometheus_client(samples, form)


@pytest.mark.parametrize("form", Format)
def test_every_family_is_written_as_prometheus_client_writes_it(form):
    samples = [(family.name, tuple(f'"{name}"\\\n' for name in family.labels), 1.5e9) for family in FAMILIES]
    assert Exposition(FAMILIES).render(samples, form) == written_by_prometheus_client(samples, form)


def test_openmetrics_is_read_by_its_own_parser():
    samples = [(family.name, tuple(f'"{name}"\\\n' for name in family.labels), 1.5e9) for family in FAMILIES]
    text = Exposition(FAMILIES).render(samples, Format.OPENMETRICS).decode()
    assert text.endswith("\n# EOF\n")
    read = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert [(sample.name, set(sample.labels.values()), sample.value) for sample in read] == [
        (name, set(labels), value) for name, labels, value in samples
    ]
    assert Exposition(FAMILIES).render([], Format.OPENMETRICS) == b"# EOF\n"


def test_samples_of_one_family_are_grouped_whatever_their_order():
    samples = [("things_total", ("a",), 1), ("plain_ratio", (), 2), ("things_total", ("b",), 3)]
    text = Exposition([PLAIN, COUNTED]).render(samples).decode()
    assert text.splitlines()[1:] == [
        "# TYPE plain_ratio gauge",
        "plain_ratio 2.0",
        "# HELP things_total Things.",
        "# TYPE things_total counter",
        'things_total{app="a"} 1.0',
        'things_total{app="b"} 3.0',
    ]


def test_a_name_without_utf_8_does_not_fail_the_scrape():
    assert b'things_total{app="a?b"} 1.0\n' in Exposition([COUNTED]).render([("things_total", ("a\ud800b",), 1)])


@pytest.mark.parametrize(
    ("sample", "error"),
    [
        (("unheard_of", (), 1), KeyError),
        (("things_total", (), 1), ValueError),
        (("plain_ratio", ("a",), 1), ValueError),
    ],
)
def test_a_sample_that_fits_no_family_is_an_error(sample, error):
    with pytest.raises(error):
        Exposition([PLAIN, COUNTED]).render([sample])


def test_lines_of_series_that_are_gone_are_dropped(monkeypatch):
    monkeypatch.setattr(exposition, "_SPARE_SERIES", 10)
    writer = Exposition([COUNTED])
    for scrape in range(100):
        text = writer.render([("things_total", (f"app-{scrape}",), 1)])
        assert f'{{app="app-{scrape}"}} 1.0\n'.encode() in text
        assert len(writer._last) <= 16


def test_the_documentation_lists_every_family_as_it_is():
    page = Path(__file__).parents[3] / "docs" / "metrics.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `mempressure_")]
    assert rows == [
        f"| `{family.name}` | {family.kind} | {', '.join(f'`{label}`' for label in family.labels)} | {family.help} |"
        for family in FAMILIES
    ]


@pytest.mark.parametrize("values", [(0.0, -0.0, 0.0), (True, 1, 1.0, False), (math.nan, math.nan), (1e6, 1e6, 1e6 + 1)])
def test_a_cached_line_has_the_current_value(values):
    writer = Exposition([COUNTED])
    for value in values:
        fresh = Exposition([COUNTED]).render([("things_total", ("shop",), value)])
        assert writer.render([("things_total", ("shop",), value)]) == fresh
