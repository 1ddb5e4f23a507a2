"""Values of flags that several subcommands have."""

import argparse


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
