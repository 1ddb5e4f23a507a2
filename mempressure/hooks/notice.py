"""Notices on standard error, which never disturb the application: a full disk or a closed stream loses them."""

import os
import sys
from contextlib import suppress


def say(text: str) -> None:
    """Write one line on standard error, with the program's name before it."""
    line = f"mempressure: {text}\n"
    # sys.stderr is None where it was closed at the start, and a file on a full disk refuses the line.
    with suppress(OSError, ValueError, AttributeError):
        try:
            descriptor = sys.stderr.fileno()
        except (OSError, ValueError):  # something in its place, without a descriptor
            sys.stderr.write(line)
            return
        # Not through its buffer, which would be tried again at the end, and end the program with status 120.
        sys.stderr.flush()
        os.write(descriptor, line.encode(errors="backslashreplace"))
