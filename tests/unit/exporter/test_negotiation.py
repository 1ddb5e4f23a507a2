import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure_exporter.exposition import Format
from mempressure_exporter.negotiation import negotiated

OPENMETRICS = "application/openmetrics-text"
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
TEXT_ONLY = "text/plain;version=0.0.4;q=1,*/*;q=0.1"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (PROMETHEUS_2, Format.OPENMETRICS),
        (PROMETHEUS_3, Format.OPENMETRICS),
        (TEXT_ONLY, Format.TEXT),
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format.TEXT),
        (OPENMETRICS, Format.OPENMETRICS),
        (f"{OPENMETRICS}; version=1.0.0; charset=utf-8", Format.OPENMETRICS),
        (f'{OPENMETRICS.upper()}; Version="1.0.0"', Format.OPENMETRICS),
        (f"{OPENMETRICS};version=0.0.1", Format.TEXT),
        (f"{OPENMETRICS};version=2.0.0", Format.TEXT),
        (f"text/plain;q=0.5,{OPENMETRICS};q=0.4", Format.TEXT),
        (f"text/plain;q=0.4,{OPENMETRICS};q=0.5", Format.OPENMETRICS),
        (f"text/plain,{OPENMETRICS}", Format.TEXT),
        (f"{OPENMETRICS},text/plain", Format.OPENMETRICS),
        (f"{OPENMETRICS};q=0", Format.TEXT),
        (f"{OPENMETRICS};q=0,*/*", Format.TEXT),
        (f"{OPENMETRICS};q=high,text/plain;q=0.1", Format.TEXT),
        (f"{OPENMETRICS};q=nan", Format.TEXT),
        (f"{OPENMETRICS};q=5", Format.TEXT),
        ("application/json", Format.TEXT),
    ],
)
def test_what_a_client_gets(accept, form):
    assert negotiated(accept) is form


@given(st.text(max_size=60) | st.text("aptq*/;,=.01 ", max_size=60))
def test_whatever_a_client_sends_it_gets_one_of_them(accept):
    assert negotiated(accept) in Format
