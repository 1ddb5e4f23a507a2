"""Converters from a setting's text to its value; each raises ValueError with what to send instead."""

import os
from collections.abc import Callable
from pathlib import Path

_SIZE_UNITS = {"": 1, "b": 1} | {
    unit + suffix: base**power
    for power, unit in enumerate("kmgt", start=1)
    for suffix, base in (("", 1024), ("ib", 1024), ("b", 1000))
}
_BOOLEANS = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)
_LARGEST_SIZE = 2**62
_LARGEST_UID = 2**32 - 2
"""The number above it, (uid_t) -1, means "no user" to the kernel."""


def boolean(text: str) -> bool:
    """Return the boolean for true, 1, yes, on, false, 0, no or off, in any case."""
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ValueError("true or false") from None


def number(low: float, high: float) -> Callable[[str], float]:
    """Return a converter to a number from `low` to `high`, both included."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return value

    return convert


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a converter to a whole number from `low` to `high`, both included."""
    to_number = number(low, high)

    def convert(text: str) -> int:
        try:
            value = to_number(text)
        except ValueError:
            value = float("nan")
        if not value.is_integer():
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return convert


def size(text: str) -> int:
    """Return a size in bytes; k, M, G, T and KiB to TiB are powers of 1024, kB to TB are powers of 1000."""
    stripped = text.strip().lower()
    digits = stripped.rstrip("bikmgt ")
    unit = stripped[len(digits) :].strip()
    try:
        value = float(digits) * _SIZE_UNITS[unit]
    except (ValueError, KeyError):
        value = -1.0
    if not 0 <= value <= _LARGEST_SIZE:
        raise ValueError("a size from 0 to 4194304TiB, such as 512MiB, 2GiB or 1500000000 (bytes)") from None
    return int(value)


def choice(*names: str) -> Callable[[str], str]:
    """Return a converter that accepts one of `names`, unchanged."""

    def convert(text: str) -> str:
        if text not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return text

    return convert


def subset(*names: str) -> Callable[[str], tuple[str, ...]]:
    """Return a converter to some of `names`, separated by commas or spaces; true means all of them, false none."""

    def convert(text: str) -> tuple[str, ...]:
        parts = text.replace(",", " ").split()
        if len(parts) == 1 and parts[0].lower() in _BOOLEANS:
            return names if boolean(parts[0]) else ()
        if not parts or not set(parts) <= set(names):
            raise ValueError(f"true, false, or some of {', '.join(names)}")
        return tuple(name for name in names if name in parts)

    return convert


def label(text: str) -> str:
    """Return a name of printable characters, which can be displayed on a terminal and used as a metric label."""
    if not text.strip() or len(text) > 100 or not text.isprintable():
        raise ValueError("a name of 1 to 100 printable characters")
    return text


def absolute_path(text: str) -> Path:
    """Return an absolute path; a relative one would mean another file or directory in each process."""
    if not os.path.isabs(text) or "\0" in text:
        raise ValueError("an absolute path, such as /run/mempressure")
    return Path(text)


def url(text: str) -> str:
    """Return the address of a server as http://HOST:PORT; HOST:PORT alone means http."""
    import re  # deferred: most workers have no such setting

    scheme, found, rest = text.strip().rpartition("://")
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(\d{1,5})/?", rest, re.ASCII)
    if scheme not in (("http", "https") if found else ("",)) or match is None or not 0 < int(match[2]) <= 65535:
        raise ValueError("HOST:PORT, http://HOST:PORT or https://HOST:PORT, such as 127.0.0.1:10062")
    return f"{scheme or 'http'}://{match[1]}:{int(match[2])}"


def uids(text: str) -> tuple[int, ...]:
    """Return numeric user ids, separated by commas or spaces in the text."""
    parts = text.replace(",", " ").split()
    if not all(part.isascii() and part.isdecimal() and len(part) <= 10 for part in parts):
        raise ValueError(f"numeric user ids from 0 to {_LARGEST_UID}, separated by commas")
    values = tuple(int(part) for part in parts)
    if max(values, default=0) > _LARGEST_UID:
        raise ValueError(f"numeric user ids from 0 to {_LARGEST_UID}, separated by commas")
    return values
