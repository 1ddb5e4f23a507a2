"""What every subcommand that asks the actuator takes: where it is, and the token."""

import argparse
import sys
from pathlib import Path

from mempressure.config.configuration import Configuration, load_configuration
from mempressure.control.actuator_client import Actuator, checked_token, token_in
from mempressure.errors import ConfigurationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every subcommand that asks the actuator takes."""
    parser.add_argument(
        "--actuator", metavar="URL", help="where the actuator is (default: MEMPRESSURE_ACTUATOR, or 127.0.0.1:10062)"
    )
    parser.add_argument(
        "--token-file", metavar="PATH", type=Path, help="the actuator's token (default: token in MEMPRESSURE_STATE_DIR)"
    )


def settings_and_actuator(options: argparse.Namespace) -> tuple[Configuration, Actuator]:
    """Return the configuration, and the actuator that it or a flag names.

    Raises:
        ConfigurationError: a setting or the flag cannot be used.
    """
    configuration = load_configuration(flags={"mempressure_actuator": options.actuator or ""})
    path = options.token_file or configuration.state_directory / "token"
    return configuration, Actuator(configuration.mempressure_actuator, token=lambda: read_token(path))


def read_token(path: Path) -> str:
    """Return the token in a file, or ask for it where the file cannot be read and a person is there to ask.

    Raises:
        ConfigurationError: there is none.
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
