import io
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.http.headers import HeadError, read_head

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,10}", fullmatch=True).filter(lambda name: name.lower() != "host")
VALUES = st.from_regex(r"([!-~\xa0-\xff]([ -~\xa0-\xff]{0,10}[!-~])?)?", fullmatch=True)


def read(content):
    return read_head(io.BytesIO(content))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=10))
def test_headers_are_what_was_sent(items):
    lines = "".join(f"{name}:  {value}\t\r\n" for name, value in items)
    head = read(f"GET /a?b HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
    assert (head.method, head.target, head.version) == ("GET", "/a?b", (1, 1))
    assert list(head.headers.items()) == items
    for name, _ in items:
        expected = [value for key, value in items if key.lower() == name.lower()]
        assert head.headers.get_all(name.upper()) == expected
        assert head.headers.get(name.lower()) == expected[0]
        assert name.swapcase() in head.headers
    assert "x-none" not in head.headers
    assert head.headers.get("x-none", "default") == "default"


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_request_or_none(content):
    try:
        head = read(b"GET " + content)
    except (EOFError, HeadError) as error:
        refused = error
    else:
        assert head.version[0] == 1
        assert not set(head.target) & set("\r\n \0")
        return
    assert isinstance(refused, EOFError) or refused.status in {400, 431, 505}
    assert "\n" not in str(refused)


def test_bare_line_feeds_are_line_ends():
    assert list(read(b"GET / HTTP/1.1\nA: b\n\n").headers.items()) == [("A", "b")]


@pytest.mark.parametrize("content", [b"", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nA: b\r\n"])
def test_what_was_broken_off(content):
    with pytest.raises(EOFError):
        read(content)


def test_another_version_is_named():
    with pytest.raises(HeadError, match=r"HTTP/2\.0 is not spoken") as caught:
        read(b"PRI * HTTP/2.0\r\n\r\n")
    assert caught.value.status is HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
