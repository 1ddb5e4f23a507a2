"""The web configuration file (`--web.config.file`): TLS, users, headers and a rate limit, in exporter-toolkit's format.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md describes the format, and
docs/security.md how this server differs. Imported only where the flag is given: YAML, ssl and bcrypt take 9 MB.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mempressure.config.files import parse_yaml, read_text
from mempressure.errors import WebConfigError
from mempressure.http.rate import RateLimit, parse_duration
from mempressure.http.tls import TLS, TLSSettings
from mempressure.http.users import Users

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0
_Stamp = tuple[int, ...] | None
_SECTIONS = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
_HEADERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Content-Security-Policy": (),
        "Strict-Transport-Security": (),
        "X-Content-Type-Options": ("nosniff",),
        "X-Frame-Options": ("deny", "sameorigin"),
        "X-XSS-Protection": (),
    }
)
"""The headers that may be set, with their allowed values where those are few."""


class Loaded(NamedTuple):
    """One version of the file."""

    tls: TLS | None
    users: Users | None
    headers: tuple[tuple[str, str], ...]
    rate: RateLimit | None
    read: Mapping[str, _Stamp]
    """The state of each file that it was read from: itself, certificates and keys."""


class WebConfig:
    """The file's current content, which is read again when the file, or one that it names, has changed.

    A new version that cannot be used is logged once, and the previous one stays in force.

    Args:
        path: the file.
        on_error: called once for each version that cannot be used.

    Raises:
        WebConfigError: the file, or one that it names, cannot be used.
    """

    def __init__(self, path: str, *, on_error: Callable[[WebConfigError], None] = lambda _: None) -> None:
        self._path = path
        self.on_error = on_error
        self._changing = threading.Lock()
        self._loaded = load(path)
        self._seen = self._loaded.read
        self._error = ""
        self._next_try = math.inf

    def current(self) -> Loaded:
        """Return the version in force; called for each connection and each request."""
        # Four stats take 6 us, which is not worth a timer.
        now = {path: _stamp(path) for path in self._loaded.read}
        stale = now != self._seen or time.monotonic() > self._next_try
        if stale and self._changing.acquire(blocking=False):
            try:
                self._seen = now
                self._read_again()
            finally:
                self._changing.release()
        return self._loaded

    def _read_again(self) -> None:
        try:
            new = load(self._path)
            self._require_as_protected(new)
        except WebConfigError as error:
            # A file that it names may appear or be corrected without a change of the files that are watched.
            self._next_try = time.monotonic() + _RETRY_SECONDS
            if str(error) != self._error:
                self._error = str(error)
                self.on_error(error)
                _log.error("web configuration not reloaded, the previous one stays in force: reason=%s", error)
            return
        self._loaded, self._seen, self._error, self._next_try = new, new.read, "", math.inf
        _log.info("web configuration reloaded: path=%s", self._path)

    def _require_as_protected(self, new: Loaded) -> None:
        """Refuse a reload that would turn TLS on or off, or authentication off."""
        if (new.tls is None) != (self._loaded.tls is None):
            raise WebConfigError(
                f"{self._path}: tls_server_config was {'removed' if new.tls is None else 'added'}; restart for that"
            )
        # An editor may have emptied the file a moment ago and be about to write it.
        if new.users is None and self._loaded.users is not None:
            raise WebConfigError(
                f"{self._path}: basic_auth_users was removed: authentication would be off; restart for that"
            )


def load(path: str) -> Loaded:
    """Read the file, and the certificates and keys that it names.

    Raises:
        WebConfigError: one of them cannot be used.
    """
    read = {path: _stamp(path)}  # before reading, so that a change meanwhile causes another reload
    content = _content(path)
    _require_known(content, _SECTIONS, path)
    try:
        settings = TLSSettings.of(_mapping(content, "tls_server_config", path), folder=os.path.dirname(path))
        read |= {name: _stamp(name) for name in (settings.files if settings else ())}
        return Loaded(
            TLS(settings) if settings else None,
            _users(_mapping(content, "basic_auth_users", path)),
            _http(_mapping(content, "http_server_config", path)),
            _rate(_mapping(content, "rate_limit", path)),
            read,
        )
    except WebConfigError:
        raise
    except ValueError as error:
        raise WebConfigError(f"{path}: {error}") from None


def _content(path: str) -> dict[str, Any]:
    try:
        text = read_text(path)
    except OSError as error:
        raise WebConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WebConfigError(f"{path} cannot be read: {error}") from None
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise WebConfigError(f"{path} is no YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise WebConfigError(f"{path} holds a {type(content).__name__}; send {', '.join(_SECTIONS)}")
    return content


def _mapping(content: Mapping[str, Any], section: str, path: str) -> dict[str, Any]:
    value = content.get(section)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WebConfigError(f"{path}: {section} holds a {type(value).__name__}; send keys and values")
    return value


def _require_known(content: Iterable[Any], known: Iterable[str], path: str) -> None:
    if unknown := [str(key) for key in content if key not in known]:
        raise WebConfigError(f"{path}: {unknown[0]!r} is unknown; known are {', '.join(known)}")


def _users(section: Mapping[Any, Any]) -> Users | None:
    return Users(section) if section else None


def _http(section: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    for key, value in section.items():
        if key not in {"http2", "headers"}:
            raise ValueError(f"http_server_config.{key} is unknown; known are http2, headers")
        if key == "http2" and not isinstance(value, bool):
            raise ValueError(f"http_server_config.http2={value!r} cannot be used; send true or false")
    headers = section.get("headers") or {}
    if not isinstance(headers, dict):
        raise ValueError("http_server_config.headers holds no headers; send keys and values")
    for name, value in headers.items():
        where = f"http_server_config.headers.{name}"
        if name not in _HEADERS:
            raise ValueError(f"{where} is unknown; known are {', '.join(_HEADERS)}")
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            raise ValueError(f"{where}={value!r:.60} cannot be used; send printable ASCII")
        if _HEADERS[name] and value not in _HEADERS[name]:
            raise ValueError(f"{where}={value!r:.60} cannot be used; send {' or '.join(_HEADERS[name])}")
    return tuple((name, value) for name, value in headers.items() if value)


def _rate(section: Mapping[str, Any]) -> RateLimit | None:
    for key in section:
        if key not in {"interval", "burst"}:
            raise ValueError(f"rate_limit.{key} is unknown; known are interval, burst")
    interval, burst = parse_duration(section.get("interval", 0)), section.get("burst", 0)
    if interval is None:
        raise ValueError(f"rate_limit.interval={section['interval']!r:.60} cannot be used; send such as 1s or 100ms")
    if isinstance(burst, bool) or not isinstance(burst, int) or burst < 0:
        raise ValueError(f"rate_limit.burst={burst!r:.60} cannot be used; send a whole number")
    if interval and not burst:
        raise ValueError("rate_limit.burst=0 lets no request pass; send 1 or more, or interval: 0 for no limit")
    return RateLimit(interval=interval, burst=burst) if interval else None


def _stamp(path: str) -> _Stamp:
    """Return values of a file's status of which at least one changes when the file does; None if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
