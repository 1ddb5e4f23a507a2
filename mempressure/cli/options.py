"""Command-line options that several subcommands have: the actuator's address and token, durations and times."""

import argparse
import re
import sys
import time
from datetime import datetime
from pathlib import Path

from mempressure.config.configuration import Configuration, load_configuration
from mempressure.control.actuator_client import ActuatorClient, checked_token, token_in
from mempressure.errors import ConfigurationError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_actuator_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every subcommand that calls the actuator."""
    parser.add_argument(
        "--actuator", metavar="URL", help="where the actuator is (default: MEMPRESSURE_ACTUATOR, or 127.0.0.1:10062)"
    )
    parser.add_argument(
        "--token-file", metavar="PATH", type=Path, help="the actuator's token (default: token in MEMPRESSURE_STATE_DIR)"
    )


def settings_and_actuator(options: argparse.Namespace) -> tuple[Configuration, ActuatorClient]:
    """Return the configuration, and a client of the actuator that it, or an option, names.

    Raises:
        ConfigurationError: a setting or an option cannot be used.
    """
    configuration = load_configuration(flags={"mempressure_actuator": options.actuator or ""})
    path = options.token_file or configuration.state_directory / "token"
    return configuration, ActuatorClient(configuration.actuator_url, token=lambda: read_token(path))


def read_token(path: Path) -> str:
    """Return the token in a file; if it cannot be read and standard input is a terminal, ask for the token there.

    Raises:
        ConfigurationError: the file holds no valid token, or cannot be read and there is no terminal.
    """
    try:
        return token_in(path)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; send --token-file") from None
    except OSError as error:
        if not sys.stdin.isatty():
            raise ConfigurationError(f"the token is needed, and {path}: {error.strerror}; send --token-file") from error
        from getpass import getpass

        return checked_token(getpass(f"Token of the actuator ({path}: {error.strerror}): "), origin="you")


def seconds(text: str) -> float:
    """Return a duration in seconds, from a tenth of a second to a day.

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
    """Return a time in Unix seconds from how long ago it was (90s, 15m, 2h, 7d), or from a date and time.

    A time without a zone is local.

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
