import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.http.messages import Headers, Request, Response
from mempressure_exporter.exposition import Format
from mempressure_exporter.http import accepts_gzip, compressed, preferred_format

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
def test_the_format_that_a_client_prefers(accept, form):
    assert preferred_format(accept) is form


@given(st.text(max_size=60) | st.text("aptq*/;,=.01 ", max_size=60))
def test_any_accept_header_gets_a_supported_format(accept):
    assert preferred_format(accept) in Format


TEXT = b"mempressure_host_memory_total_bytes 1\n" * 100


def request(**headers):
    return Request("GET", "/", "", Headers((name.replace("_", "-"), value) for name, value in headers.items()))


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5, br", True),
        ("x-gzip", True),
        ("*", True),
        ("gzip;q=1.000", True),
        ("gzip ; q=0.001", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("gzipped", False),
        ("gzip;q=high", False),
        ("gzip;level=9", False),
    ],
)
def test_clients_that_accept_gzip(header, accepts):
    assert accepts_gzip(header) is accepts


def test_large_bodies_are_compressed_for_clients_that_accept_it():
    plain = Response(200, "text/plain", TEXT)
    answer = compressed(request(Accept_Encoding="gzip"), plain)
    assert gzip.decompress(answer.body) == TEXT
    assert len(answer.body) < len(TEXT) / 5
    assert dict(answer.headers) == {"Vary": "Accept-Encoding", "Content-Encoding": "gzip"}
    assert compressed(request(), plain) == plain._replace(headers=(("Vary", "Accept-Encoding"),))
    assert compressed(request(Accept_Encoding="gzip"), plain._replace(body=b"short")).body == b"short"
