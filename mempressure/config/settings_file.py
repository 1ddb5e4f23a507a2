"""`settings.json`: the file that keeps the settings that people make at run time.

The actuator writes it; the exporter and the workers read it. It is replaced whole, so a reader never sees half of
it; writers take a lock file in turn, so two at once lose nothing. A damaged file is kept aside and the defaults hold.
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
"""What reading a file of any content can raise."""


class SettingsError(MempressureError):
    """The settings file is damaged; the defaults hold until something is set anew."""


class SettingsFile:
    """The home of the run-time settings.

    Args:
        directory: the state directory; made, closed to others, at the first write.
        defaults: thresholds and hysteresis that hold where the file says nothing.
        on_damage: called for each damaged file that is read, for whoever counts them.
    """

    def __init__(self, directory: Path, *, defaults: Thresholds, on_damage: Callable[[], None] = lambda: None) -> None:
        self._on_damage = on_damage
        self._path = directory / "settings.json"
        self._defaults = defaults
        self._seen: tuple[int, int, int] | None = None
        self._settings = self._unset = Settings(thresholds=defaults)
        self.problem: SettingsError | None = None
        """What was wrong with the file when it was read last."""

    def read(self) -> Settings:
        """Return the current settings; one `stat` where nothing changed.

        Raises:
            OSError: the file is there and cannot be read.
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
        """Apply `change` to the current settings and store the result before returning it.

        Raises:
            OSError: the directory cannot be written to; what was stored before stays.
            UnsafeDirectoryError: the directory is open to others.
        """
        make_private(self._path.parent)
        with self._locked():
            if self._path.exists():
                self._keep_aside_if_damaged()
            # Another writer's file may have got a freed inode within one tick of the clock: look again, always.
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
        # What nobody set is the configuration's, today's and tomorrow's.
        **{name: value for name, value in values.items() if name in settings.chosen},
        "preferences": [
            {"app": app, "package": package, "keep_loaded": keep}
            for (app, package), keep in sorted(settings.preferences.items())
        ],
    }


def _from_json(content: Any, defaults: Thresholds) -> Settings:
    if not isinstance(content, dict) or content.get("version") != 1:
        raise ConfigurationError("no settings of version 1")
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
        raise ConfigurationError(f"{name}={value!r:.60} is no {kind.__name__}")
    return value


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size
