"""Logging of both services: one line for each event on stderr, as logfmt or JSON."""

import argparse
import json
import logging
import re
import sys
import time
from typing import TextIO

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
FORMATS = ("logfmt", "json")

_BARE = re.compile(r"[\w./:@+-]+", re.ASCII)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--log.level` and `--log.format`, whose values `set_up` takes."""
    parser.add_argument("--log.level", dest="log_level", choices=LEVELS, default="info", help="the lowest level logged")
    parser.add_argument(
        "--log.format", dest="log_format", choices=FORMATS, default="logfmt", help="how lines are written"
    )


def set_up(*, level: str = "info", log_format: str = "logfmt", stream: TextIO | None = None) -> None:
    """Log the events of the whole process to `stream`, replacing any earlier configuration of logging.

    Args:
        level: one of `LEVELS`; events of lower levels are dropped.
        log_format: one of `FORMATS`.
        stream: where lines are written; stderr if None.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(log_format))
    logging.basicConfig(handlers=[handler], level=LEVELS[level], force=True)
    logging.captureWarnings(True)


class LineFormatter(logging.Formatter):
    """Writes an event as one line of the fields time (UTC), level, logger, msg and, where there is one, error."""

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self._write = _json if log_format == "json" else _logfmt

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": "warn" if record.levelname == "WARNING" else record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return self._write(fields)


def _json(fields: dict[str, str]) -> str:
    return json.dumps(fields)


def _logfmt(fields: dict[str, str]) -> str:
    # JSON's quoting keeps line ends and terminals' control sequences out of the log.
    return " ".join(
        f"{name}={value if _BARE.fullmatch(value) else json.dumps(value)}" for name, value in fields.items()
    )
