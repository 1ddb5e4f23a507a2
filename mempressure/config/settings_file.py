"""`settings.json` in the state directory: the file of the settings made at run time.

The actuator writes it; the exporter and the workers read it. It is replaced atomically, and writers take turns by a
lock file, so no change is lost. A damaged file is renamed, and the defaults apply.
"""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from mempressure.config.paths import atomic_write, make_private
from mempressure.config.runtime_settings import SWITCHES, Settings, with_switch, with_thresholds
from mempressure.config.thresholds import Thresholds
from mempressure.errors import ConfigurationError, MempressureError

_T = TypeVar("_T")


_log = logging.getLogger(__name__)


_DAMAGE = (ValueError, TypeError, KeyError, RecursionError)
"""The exceptions that parsing arbitrary content can raise."""


class SettingsError(MempressureError):
    """The settings file is damaged; the defaults apply until something is set again."""


class SettingsFile:
    """Reads and writes the run-time settings.

    Args:
        directory: the state directory; created at the first write, writable by its owner alone.
        defaults: thresholds and hysteresis that apply where none are stored.
        on_damage: called each time a damaged file is read, to count it.
    """

    def __init__(self, directory: Path, *, defaults: Thresholds, on_damage: Callable[[], None] = lambda: None) -> None:
        self._on_damage = on_damage
        self._path = directory / "settings.json"
        self._defaults = defaults
        self._seen: tuple[int, int, int] | None = None
        self._settings = self._unset = Settings(thresholds=defaults)
        self.problem: SettingsError | None = None
        """The damage found at the last reading; None if there was none."""

    def read(self) -> Settings:
        """Return the current settings; costs one `stat` while the file is unchanged.

        Raises:
            OSError: the file exists and cannot be read.
        """
        try:
            if _identity(os.stat(self._path)) != self._seen:
                with open(self._path, "rb") as file:
                    self._seen = _identity(os.fstat(file.fileno()))
                    self._settings = self._parsed(file.read())
        except FileNotFoundError:
            self._seen, self._settings, self.problem = None, self._unset, None
        return self._settings

    def update(self, change: Callable[[Settings], Settings]) -> Settings:
        """Apply `change` to the current settings, store the result and return it.

        Raises:
            OSError: the directory cannot be written to; the stored settings stay as they were.
            UnsafeDirectoryError: other users can write to the directory.
        """
        make_private(self._path.parent)
        with self._locked():
            if self._path.exists():
                self._keep_aside_if_damaged()
            # Always read again: another writer's file may have the same inode, time stamp and size as the one before.
            self._seen = None
            settings = change(self.read())
            atomic_write(self._path, json.dumps(_as_json(settings), indent=2).encode())
        return settings

    def _parsed(self, data: bytes) -> Settings:
        self.problem = None
        try:
            return _from_json(json.loads(data), self._defaults)
        except _DAMAGE as error:
            self.problem = SettingsError(f"settings file {self._path} damaged, the defaults hold: {error}")
            _log.error("settings file damaged, the defaults hold: path=%s error=%s", self._path, error)
            self._on_damage()
            return Settings(thresholds=self._defaults)

    def _keep_aside_if_damaged(self) -> None:
        try:
            _from_json(json.loads(self._path.read_bytes()), self._defaults)
        except _DAMAGE:
            aside = self._path.with_suffix(".json.damaged")
            os.replace(self._path, aside)
            _log.warning("damaged settings kept aside: path=%s", aside)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _as_json(settings: Settings) -> dict[str, Any]:
    values = {
        "thresholds": settings.thresholds.as_dict(),
        "alerts_enabled": settings.alerts_enabled,
        "suggestions_enabled": settings.suggestions_enabled,
    }
    return {
        "version": 1,
        # What was not set through the API is left out: it follows the configuration.
        **{name: value for name, value in values.items() if name in settings.chosen},
        "preferences": [
            {"app": app, "package": package, "keep_loaded": keep}
            for (app, package), keep in sorted(settings.preferences.items())
        ],
    }


def _from_json(content: Any, defaults: Thresholds) -> Settings:
    if not isinstance(content, dict) or content.get("version") != 1:
        raise ConfigurationError("not settings of version 1")
    preferences = {
        (_of(str, row, "app"), _of(str, row, "package")): _of(bool, row, "keep_loaded")
        for row in content["preferences"]
    }
    settings = Settings(thresholds=defaults, preferences=preferences)
    if "thresholds" in content:
        settings = with_thresholds(settings, content["thresholds"])
    for name in SWITCHES:
        if name in content:
            settings = with_switch(settings, name, on=_of(bool, content, name))
    return settings


def _of(kind: type[_T], row: Mapping[str, Any], name: str) -> _T:
    value = row[name]
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name}={value!r:.60} is not a {kind.__name__}")
    return value


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size
