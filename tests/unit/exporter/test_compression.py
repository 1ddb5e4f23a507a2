import gzip

import pytest

from mempressure.http.headers import Headers
from mempressure.http.messages import Request, Response
from mempressure_exporter.compression import compressed, takes_gzip

TEXT = b"mempressure_host_memory_total_bytes 1\n" * 100


def request(**headers):
    return Request("GET", "/", "", Headers((name.replace("_", "-"), value) for name, value in headers.items()))


@pytest.mark.parametrize(
    ("header", "takes"),
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
def test_who_takes_gzip(header, takes):
    assert takes_gzip(header) is takes


def test_what_is_compressed_is_the_same_and_says_so():
    plain = Response(200, "text/plain", TEXT)
    answer = compressed(request(Accept_Encoding="gzip"), plain)
    assert gzip.decompress(answer.body) == TEXT
    assert len(answer.body) < len(TEXT) / 5
    assert dict(answer.headers) == {"Vary": "Accept-Encoding", "Content-Encoding": "gzip"}
    assert compressed(request(), plain) == plain._replace(headers=(("Vary", "Accept-Encoding"),))
    assert compressed(request(Accept_Encoding="gzip"), plain._replace(body=b"short")).body == b"short"
