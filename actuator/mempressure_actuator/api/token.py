"""The token that whoever changes something must show: made at the first start, in a file that only its owner reads.

It is never logged and never in an answer.
"""

import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from mempressure.errors import ConfigurationError

_MIN_LENGTH = 16
_MAX_BYTES = 4096


class Token:
    """The secret; compares in constant time and does not show itself."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def matches(self, given: str) -> bool:
        """Return whether `given` is the token."""
        return hmac.compare_digest(self._secret, given.encode(errors="surrogatepass"))

    def __repr__(self) -> str:
        return "Token(...)"


def load_token(path: Path) -> Token:
    """Read the token at `path`, after making it where there is none.

    Raises:
        ConfigurationError: the file can be read by others, holds no token, or cannot be read or made.
    """
    try:
        if not path.exists():
            _make(path)
        return Token(_read(path))
    except OSError as error:
        raise ConfigurationError(f"token file {path}: {error.strerror}") from error


def _make(path: Path) -> None:
    """Write a new token so that nobody ever sees half of one; one that appears meanwhile stays."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    with suppress(FileNotFoundError):  # a container's actuator always has the same pid, and may have been killed here
        os.unlink(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(new, path)
    finally:
        os.unlink(new)


def _is_credential(path: Path) -> bool:
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return directory != "" and path.parent == Path(directory)


def _read(path: Path) -> str:
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigurationError(f"token file {path} is no regular file; name one, or one that is not there yet")
        # systemd gives a service's user a right of its own to what LoadCredential= brings, in a directory that nobody
        # else can enter; the mode's group bits are then that right's mask.
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
            f"token file {path} holds no token of {_MIN_LENGTH} or more ASCII characters; remove it to have one made"
        )
    return token
