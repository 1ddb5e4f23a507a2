import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.errors import ConfigurationError
from mempressure.http.address import parse_listen_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:10061", "127.0.0.1", 10061),
        (":10061", "", 10061),
        ("[::1]:10061", "::1", 10061),
        ("[::]:0", "::", 0),
        ("localhost:65535", "localhost", 65535),
        ("my-host.example:1", "my-host.example", 1),
    ],
)
def test_a_listen_address_is_read_and_written(text, host, port):
    address = parse_listen_address(text)
    assert address == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "10061", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", ":65536", ":-1", ":123456", "h:٣"),
        *("::1:10061", "[::1]", "[1]:1", "[]:1", "[::1:1", "http://h:1", "h:1/", "h :1", "h:1\n"),
    ],
)
def test_an_error_names_the_listen_address(text):
    with pytest.raises(ConfigurationError) as caught:
        parse_listen_address(text)
    assert repr(text) in str(caught.value)


@given(st.text())
def test_any_text_is_an_address_or_a_configuration_error(text):
    try:
        address = parse_listen_address(text)
    except ConfigurationError:
        return
    assert 0 <= address.port <= 65535
