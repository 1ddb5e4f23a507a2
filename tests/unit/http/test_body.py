import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.http.body import BodyError, read_body
from mempressure.http.headers import Headers

LIMIT = 100


def read(content, *headers, limit=LIMIT):
    return read_body(io.BytesIO(content), Headers(headers), limit=limit)


CHUNKED = ("Transfer-Encoding", "chunked")


def length(text):
    return ("Content-Length", text)


def test_no_length_is_no_body():
    assert read(b"next request") == (b"", 0, True)


def test_a_body_of_known_length_ends_there():
    assert read(b"hello, next", length("5")) == (b"hello", 5, True)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=4))
def test_chunks_are_put_together(parts):
    content = b"".join(b"%x;name=value\r\n%b\r\n" % (len(part), part) for part in parts)
    whole = b"".join(parts)
    found = read(content + b"0\r\nTrailer: x\r\n\r\nnext", CHUNKED)
    assert found == (whole if len(whole) <= LIMIT else b"", len(whole), True)


def test_what_is_too_large_is_counted_and_thrown_away():
    assert read(b"x" * 101, length("101")) == (b"", 101, True)
    found = read(b"x" * 200_000, length("200000"))
    assert (found.content, found.complete) == (b"", False)
    assert found.size > 32 * LIMIT


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", [length("5")]),
        (b"hell", [length("5")]),
        (b"5\r\nhel", [CHUNKED]),
        (b"5\r\nhello\r\n", [CHUNKED]),
        (b"0\r\n", [CHUNKED]),
    ],
)
def test_what_was_broken_off_is_no_body(content, headers):
    with pytest.raises(EOFError):
        read(content, *headers)


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", [length("x")]),
        (b"", [length("-1")]),
        (b"", [length("+1")]),
        (b"", [length("1_0")]),
        (b"", [length("٣")]),
        (b"", [length("9" * 20)]),
        (b"hello", [length("5"), length("6")]),
        (b"0\r\n\r\n", [CHUNKED, length("5")]),
        (b"0\r\n\r\n", [CHUNKED, CHUNKED]),
        (b"0\r\n\r\n", [("Transfer-Encoding", "gzip, chunked")]),
        (b"0x5\r\nhello\r\n0\r\n\r\n", [CHUNKED]),
        (b"-5\r\nhello\r\n0\r\n\r\n", [CHUNKED]),
        (b"\r\nhello\r\n0\r\n\r\n", [CHUNKED]),
        (b"5\nhello\n0\n\n", [CHUNKED]),
        (b"5\r\nhello!\r\n0\r\n\r\n", [CHUNKED]),
        (b"5" + b" " * 300, [CHUNKED]),
    ],
)
def test_a_length_that_could_be_read_in_two_ways_is_refused(content, headers):
    with pytest.raises(BodyError):
        read(content, *headers)
