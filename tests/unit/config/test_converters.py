from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.config import converters

CONVERSIONS = {
    "boolean": converters.boolean,
    "number": converters.number(0, 1),
    "whole": converters.whole(0, 1),
    "size": converters.size,
    "choice": converters.choice("high", "never"),
    "label": converters.label,
    "absolute_path": converters.absolute_path,
    "uids": converters.uids,
}


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "TRUE", " On "])
def test_boolean_true(text):
    assert converters.boolean(text) is True


@pytest.mark.parametrize("text", ["false", "0", "no", "off", "False", "off\n"])
def test_boolean_false(text):
    assert converters.boolean(text) is False


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1500000000", 1_500_000_000),
        ("7b", 7),
        ("1k", 1024),
        ("1KiB", 1024),
        ("1kB", 1000),
        ("512MiB", 512 << 20),
        ("512M", 512 << 20),
        ("512 MB", 512_000_000),
        (" 2GiB ", 2 << 30),
        ("1.5g", 3 << 29),
        ("1T", 1 << 40),
        ("1TB", 10**12),
        ("1e3", 1000),
        ("4194304TiB", 1 << 62),
    ],
)
def test_size(text, number):
    assert converters.size(text) == number


@given(st.integers(0, 2**53))
def test_size_of_plain_bytes_is_exact(number):
    assert converters.size(str(number)) == number


def test_number_takes_both_bounds():
    convert = converters.number(0.1, 3600)
    assert (convert("0.1"), convert("3600"), convert(" 60 ")) == (0.1, 3600.0, 60.0)


def test_a_whole_number_has_no_fraction():
    convert = converters.whole(0, 1000)
    assert (convert("0"), convert("1000"), convert(" 60 "), convert("7.0")) == (0, 1000, 60, 7)
    assert type(convert("7.0")) is int
    for text in ("0.5", "1001", "-1", "nan", "inf", "ten", ""):
        with pytest.raises(ValueError, match=r"^a whole number from 0 to 1000$"):
            convert(text)


@pytest.mark.parametrize(
    ("text", "ids"),
    [("0", (0,)), ("1000,1001", (1000, 1001)), ("1000, 1001 ,33", (1000, 1001, 33)), ("4294967294", (2**32 - 2,))],
)
def test_uids(text, ids):
    assert converters.uids(text) == ids


@pytest.mark.parametrize(
    ("kind", "texts", "send"),
    [
        ("boolean", ["maybe", "2", "y", ""], "true or false"),
        ("number", ["x", "nan", "inf", "-inf", "-0.1", "1.1", "", "0,5"], "a number from 0 to 1"),
        (
            "size",
            ["x", "-1", "-1MiB", "nan", "inf", "5 apples", "5bib", "MiB", "", "9e99", "1PiB"],
            "a size from 0 to ",
        ),
        ("choice", ["High", "sometimes", ""], "one of high, never"),
        ("label", ["", "   ", "x" * 101, "a\nb", "a\x1b[31m", "\udcff"], "a name of 1 to 100 printable characters"),
        ("absolute_path", ["run", "./run", "~/run", "", "/a\0b"], "an absolute path, such as /run/mempressure"),
        (
            "uids",
            ["www-data", "-1", "1.5", "4294967295", "1" * 5000, "٣", "1_0"],
            "numeric user ids from 0 to 4294967294",
        ),
    ],
)
def test_what_cannot_be_used_is_told_what_to_send(kind, texts, send):
    for text in texts:
        with pytest.raises(ValueError, match=send):
            CONVERSIONS[kind](text)


@pytest.mark.parametrize("kind", CONVERSIONS)
@given(text=st.text(max_size=20))
def test_any_text_is_converted_or_refused_with_value_error(kind, text):
    with suppress(ValueError):
        CONVERSIONS[kind](text)
