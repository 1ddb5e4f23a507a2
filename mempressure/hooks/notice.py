"""Notices on standard error, which never disturb the application: a full disk or a closed stream loses them."""

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Write one line on standard error, with the program's name before it."""
    # sys.stderr is None where it was closed at the start, and a file of a full disk refuses the line.
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"mempressure: {text}\n")
        sys.stderr.flush()
