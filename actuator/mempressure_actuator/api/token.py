"""The token that requests which change something must send: created at the first start, in a file of mode 0600.

It is never logged and never part of an answer.
"""

import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from mempressure.config.paths import atomic_write
from mempressure.errors import ConfigurationError

_MIN_LENGTH = 16
_MAX_BYTES = 4096


class Token:
    """The secret; compared in constant time, and not shown by `repr`."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def matches(self, given: str) -> bool:
        """Return whether `given` is the token."""
        return hmac.compare_digest(self._secret, given.encode(errors="surrogatepass"))

    def __repr__(self) -> str:
        return "Token(...)"


def load_token(path: Path) -> Token:
    """Read the token at `path`; create the file if it is missing.

    Raises:
        ConfigurationError: the file can be read by others, holds no token, or cannot be read or created.
    """
    try:
        if not path.exists():
            _create(path)
        return Token(_read(path))
    except OSError as error:
        raise ConfigurationError(f"token file {path}: {error.strerror}") from error


def _create(path: Path) -> None:
    """Write a new token atomically; a file that appears meanwhile stays."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        atomic_write(path, f"{secrets.token_urlsafe(32)}\n".encode(), mode=0o600, replace=False)


def _is_credential(path: Path) -> bool:
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return directory != "" and path.parent == Path(directory)


def _read(path: Path) -> str:
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigurationError(
                f"token file {path} is not a regular file; name one, or a path where it can be created"
            )
        # systemd gives the service's user access to a credential of LoadCredential= by an ACL, in a directory that
        # other users cannot enter; the mode's group bits are then the ACL's mask.
        if mode & (0o037 if _is_credential(path) else 0o077):
            raise ConfigurationError(
                f"token file {path} can be used by others (mode {stat.S_IMODE(mode):04o}); chmod 600 {path}"
            )
        data = file.read(_MAX_BYTES + 1)
    try:
        token = data.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not _MIN_LENGTH <= len(token) <= _MAX_BYTES or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"token file {path} holds no token of {_MIN_LENGTH} or more ASCII characters; remove it to have one created"
        )
    return token
