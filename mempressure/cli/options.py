"""Values of flags that several subcommands have."""

import argparse
import re
import time
from datetime import datetime

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """Return seconds from a tenth to a day.

    Raises:
        ArgumentTypeError: the text is no such number.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.1 <= number <= 86400:  # false for NaN
        raise argparse.ArgumentTypeError(f"{text!r:.60} cannot be used; send seconds from 0.1 to 86400")
    return number


def moment(text: str) -> float:
    """Return a time in Unix seconds: so long ago (90s, 15m, 2h, 7d), or a date with a time, here unless it has a zone.

    Raises:
        ArgumentTypeError: the text is neither.
    """
    if ago := re.fullmatch(r"([0-9]{1,9})([smhd])", text):
        return max(0.0, time.time() - int(ago[1]) * _UNITS[ago[2]])
    try:
        when = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        when = -1.0
    if not 0 <= when <= 1e11:
        wanted = "how long ago, such as 90s, 15m, 2h or 7d, or a time such as 2026-11-22T20:15"
        raise argparse.ArgumentTypeError(f"{text!r:.60} cannot be used; send {wanted}")
    return when
