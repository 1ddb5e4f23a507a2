"""Client of the actuator's HTTP API; the token is sent only where the actuator asks for it."""

import http.client
import ipaddress
import json
import os
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from mempressure.errors import ConfigurationError, MempressureError

UNKNOWN_PACKAGE = 3
NO_ACTUATOR = 4
UNAUTHORIZED = 5

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
ACT_SECONDS = 900.0
"""An unload is answered when it is done: two minutes at most for each of the apps that hold the package."""

_MAX_TOKEN_BYTES = 4096
_MAX_BYTES = 64 << 20
"""Of an answer: a thousand cycles of the history with a hundred packages left alone in each are some 20 MB."""
_STATUS = {401: UNAUTHORIZED, 404: UNKNOWN_PACKAGE, 400: 2, 413: 2, 415: 2}
"""The exit status for what the actuator refuses; `NO_ACTUATOR` for everything else."""


class ActuatorError(MempressureError):
    """The actuator did not do what it was asked.

    Args:
        message: what a person reads.
        exit_status: what a script looks at.
    """

    def __init__(self, message: str, *, exit_status: int = NO_ACTUATOR) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class NoActuatorError(ActuatorError):
    """No actuator answers at its address."""


class ActuatorClient:
    """One actuator.

    Args:
        url: http://HOST:PORT or https://HOST:PORT.
        token: returns the token, when one is needed; asked once.
    """

    def __init__(self, url: str, *, token: Callable[[], str]) -> None:
        self.url = url
        self._parts = urlsplit(url)
        self._find_token = token
        self._token = ""

    @property
    def is_here(self) -> bool:
        """Return whether it is on this machine, where what it would tell can be read without it."""
        host = self._parts.hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def get(self, path: str) -> Any:
        """Return the data of an answer.

        Raises:
            ActuatorError: there is none.
            ConfigurationError: the token is needed, as beyond loopback, and there is none.
        """
        return self._ask("GET", path, seconds=READ_SECONDS)

    def post(self, *path: str, body: Any) -> Any:
        """Ask for a change, by a path below /api/packages, and return the data of the answer.

        Raises:
            ActuatorError: nothing was changed, or it is not known what was.
            ConfigurationError: there is no token to show.
        """
        whole = "/".join(("/api/packages", *(quote(part, safe="") for part in path)))
        return self._ask("POST", whole, body, seconds=ACT_SECONDS)

    def _ask(self, method: str, path: str, body: Any = None, *, seconds: float) -> Any:
        try:
            return self._request(method, path, body, seconds=seconds)
        except ActuatorError as error:
            if error.exit_status != UNAUTHORIZED or self._token:
                raise
        # Only now: the token goes to an actuator that asked for it, and a person need not type it where none answers.
        self._token = self._find_token()
        return self._request(method, path, body, seconds=seconds)

    def _request(self, method: str, path: str, body: Any, *, seconds: float) -> Any:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        with closing(kind(self._parts.hostname or "", self._parts.port, timeout=CONNECT_SECONDS)) as connection:
            try:
                connection.connect()
            except OSError as error:
                raise self._unanswered(error) from error
            connection.sock.settimeout(seconds)
            try:
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                response = connection.getresponse()
                data = response.read(_MAX_BYTES + 1)
            except (OSError, http.client.HTTPException) as error:
                what = "in time" if isinstance(error, TimeoutError) else f"as HTTP: {error!r}"
                raise ActuatorError(f"{self.url} did not answer {what}; whether it acted is not known") from error
        if len(data) > _MAX_BYTES:  # more than an actuator ever answers
            raise ActuatorError(f"{self.url} answered more than {_MAX_BYTES} bytes; whether it acted is not known")
        return self._content(response.status, data)

    def _content(self, status: int, data: bytes) -> Any:
        try:
            content = json.loads(data)
            if content["status"] == "success":
                return {**content["data"]}  # every answer is an object
            message = "".join(each if each.isprintable() else " " for each in f"{content['error']['message']}")
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ActuatorError(
                f"what answers at {self.url} is no actuator of mempressure (HTTP {status}); "
                "set MEMPRESSURE_ACTUATOR, or send --actuator on the command line"
            ) from None
        raise ActuatorError(f"the actuator refused: {message}", exit_status=_STATUS.get(status, NO_ACTUATOR))

    def _unanswered(self, error: OSError) -> NoActuatorError:
        reason = error.strerror or str(error)
        return NoActuatorError(
            f"no actuator answers at {self.url} ({reason}), and only an actuator can do this; start it with "
            "mempressure-actuator, or, if it is elsewhere, set MEMPRESSURE_ACTUATOR, or send --actuator on the "
            "command line"
        )


def token_in(path: Path) -> str:
    """Return the token that a file holds.

    Raises:
        OSError: it cannot be read.
        ConfigurationError: what it holds is no token.
    """
    # A FIFO would be waited for.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigurationError(f"token file {path} is no regular file")
        return checked_token(file.read(_MAX_TOKEN_BYTES).decode("ascii", errors="replace"), origin=str(path))


def checked_token(text: str, *, origin: str) -> str:
    """Return a token without the white space around it.

    Raises:
        ConfigurationError: it is none.
    """
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(f"what {origin} gave is no token; it is what the actuator's token file holds")
    return token
