"""The configuration: one table of settings, read from flags, the environment and a file, in this order.

Every setting is an environment variable; its lower-case name is its key in the file that `MEMPRESSURE_CONFIG` names
(YAML or JSON). What people set through the API at run time is kept elsewhere, in `mempressure.config.runtime_settings`.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from mempressure.config.converters import boolean, choice, directory, label, number, size, subset, uids, url, whole
from mempressure.errors import ConfigurationError
from mempressure.mechanisms import NAMES

if TYPE_CHECKING:
    from mempressure.config.thresholds import Thresholds

OBSERVED_IN = "MEMPRESSURE_OBSERVED_IN"
"""What `mempressure run` tells the processes of its command: where they are to keep what was observed of them."""
PACKAGE_PROCESS_VARIABLE = "MEMPRESSURE_PACKAGE_PROCESS"
"""Holds, inside a package process, the name of its package."""

DEFAULT_FILE = "/etc/mempressure/mempressure.yml"

RECYCLE_CHOICES = ("normal", "high", "emergency", "never")
DRY_RUN_CHOICES = (*NAMES, "custom")


class Setting(NamedTuple):
    """One row of the table: its environment variable, how its text is read, its default, and what it does."""

    variable: str
    convert: Callable[[str], Any]
    default: Any
    meaning: str

    @property
    def key(self) -> str:
        """Return its key in a configuration file, and its attribute of `Configuration`."""
        return self.variable.lower()

    @property
    def flag(self) -> str:
        """Return its flag, where a program takes it as one."""
        return _FLAGS.get(self.variable) or "--" + self.key.removeprefix("mempressure_").replace("_", "-")


_FLAGS = {"MEMPRESSURE_ACTIONS_FILE": "--actions.file"}
"""Flags that are named otherwise, as those of Prometheus' exporters are."""

_UNLOADING = "LAZY_LOADING_UNLOADING_"

SETTINGS = (
    Setting(_UNLOADING + "MEMORY_PRESSURE_THRESHOLD", number(0, 1), 0.8, "usage at which packages are unloaded"),
    Setting(
        _UNLOADING + "MEMORY_PRESSURE_TIMEOUT", number(0, 86400), 60.0, "seconds without use that make a package idle"
    ),
    Setting(_UNLOADING + "ENABLE_MEMORY_PRESSURE_UNLOADING", boolean, True, "unload at all; false only reports"),
    Setting(
        _UNLOADING + "ENABLE_USAGE_PATTERN_UNLOADING", boolean, True, "prefer what is used seldom and cheap to reload"
    ),
    Setting("MEMPRESSURE_APP", label, "", "the application's name; default: the main program's"),
    Setting("MEMPRESSURE_BUDGET", size, 0, "memory the application may use; 0: no budget"),
    Setting("MEMPRESSURE_ADMISSION", boolean, False, "refuse loads that would enter emergency"),
    Setting(
        "MEMPRESSURE_PROCESS_START_TIMEOUT", number(0.1, 86400), 60.0, "seconds a package process may take to start"
    ),
    Setting(
        "MEMPRESSURE_MESSAGE_LIMIT", size, 1 << 30, "what arguments or result of an isolated call may take; 0: no limit"
    ),
    Setting("MEMPRESSURE_ACTUATOR", url, "http://127.0.0.1:10062", "where the actuator is"),
    Setting("MEMPRESSURE_NODE", label, "", "this machine's name; default: its host name"),
    Setting("MEMPRESSURE_RUNTIME_DIR", directory, "", "agents' state files and sockets"),
    Setting("MEMPRESSURE_STATE_DIR", directory, "", "settings, token and store"),
    Setting("MEMPRESSURE_CACHE_DIR", directory, "", "verdicts that rehearsals led to"),
    Setting("MEMPRESSURE_TRUSTED_UIDS", uids, (), "users besides root and its own that may give a worker orders"),
    Setting("MEMPRESSURE_HYSTERESIS", number(0, 0.5), 0.05, "how far below its threshold a level is left"),
    Setting("MEMPRESSURE_CRITICAL_RATIO", number(0, 1), 0.95, "usage from which the strategy is critical"),
    Setting("MEMPRESSURE_ALERT_COOLDOWN", number(0, 86400), 300.0, "seconds before the same alert is logged again"),
    Setting("MEMPRESSURE_RECYCLE", choice(*RECYCLE_CHOICES), "high", "strategy from which workers are recycled"),
    Setting(
        "MEMPRESSURE_RECYCLE_MIN_LIFETIME", number(0, 86400), 60.0, "seconds a worker lives before it may be recycled"
    ),
    Setting("MEMPRESSURE_LONGEST_REQUEST", number(0, 86400), 0.0, "seconds the longest request takes; 0: not told"),
    Setting("MEMPRESSURE_RECYCLES_PER_MINUTE", whole(0, 1000), 10, "workers of an app recycled in a minute at most"),
    Setting("MEMPRESSURE_FUTILE_CYCLES", whole(1, 1000), 5, "cycles in a row that bring nothing before it pauses"),
    Setting("MEMPRESSURE_FUTILE_PAUSE", number(0, 86400), 60.0, "seconds that such a pause lasts at most"),
    Setting("MEMPRESSURE_THRESHOLD_FLOOR", number(0, 1), 0.3, "the lowest threshold that may be set through the API"),
    Setting("MEMPRESSURE_DRY_RUN", subset(*DRY_RUN_CHOICES), (), "mechanisms that are decided on but not carried out"),
    Setting("MEMPRESSURE_ACTIONS_FILE", directory, "", "the operator's own actions; empty: none"),
    Setting("MEMPRESSURE_HEARTBEAT_INTERVAL", number(0.1, 3600), 5.0, "seconds between heartbeats of Alertmanager"),
    Setting("MEMPRESSURE_LEASE", number(1, 86400), 150.0, "seconds an alert keeps the unloading going unless repeated"),
    Setting("MEMPRESSURE_HISTORY_DAYS", number(0.01, 3650), 30.0, "days the actuator remembers what it did"),
)
"""Every setting there is, in the order of the documentation."""

_BY_KEY = MappingProxyType({setting.key: setting for setting in SETTINGS})


class Configuration:
    """The value of every setting, by attribute, and where each came from.

    Attributes are the settings' keys: `configuration.mempressure_budget`.
    """

    def __init__(self, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        self._values = dict(values)
        self.origins = MappingProxyType(dict(origins))

    def __getattr__(self, key: str) -> Any:
        try:
            # Through __dict__: copying asks for attributes before there is a `_values`.
            return self.__dict__["_values"][key]
        except KeyError:
            raise AttributeError(f"no setting {key!r}; there are {', '.join(_BY_KEY)}") from None

    @property
    def app(self) -> str:
        """Return the application's name: as set, else the main program's."""
        return self.mempressure_app or _program(sys.argv[0] if sys.argv else "")

    @property
    def node(self) -> str:
        """Return this machine's name: as set, else its host name."""
        return self.mempressure_node or os.uname().nodename

    @property
    def runtime_directory(self) -> Path:
        """Return the directory of agents' state files and sockets; by FHS as root, by XDG otherwise."""
        return Path(self.mempressure_runtime_dir) if self.mempressure_runtime_dir else _default_runtime_directory()

    @property
    def state_directory(self) -> Path:
        """Return the directory of settings, token and store; by FHS as root, by XDG otherwise."""
        return Path(self.mempressure_state_dir) if self.mempressure_state_dir else _default_state_directory()

    @property
    def cache_directory(self) -> Path:
        """Return this user's directory of verdicts; by FHS as root, by XDG otherwise."""
        return Path(self.mempressure_cache_dir) if self.mempressure_cache_dir else _default_cache_directory()

    @property
    def thresholds(self) -> "Thresholds":
        """Return the thresholds that hold where nobody set others through the API.

        Raises:
            ConfigurationError: unload_packages or the hysteresis does not fit the other defaults.
        """
        from mempressure.config.thresholds import (
            Thresholds,
        )  # 34 KB that a worker pays where it watches the memory itself

        key = SETTINGS[0].key
        try:
            return Thresholds(unload_packages=self._values[key], hysteresis=self._values["mempressure_hysteresis"])
        except ConfigurationError as error:
            others = Thresholds()
            raise ConfigurationError(
                f"{SETTINGS[0].variable}={self._values[key]!r} ({self.origins[key]}) does not fit the other "
                f"thresholds; send a ratio above {others.warning} and below {others.aggressive_unload}"
            ) from error


def load_configuration(
    *, flags: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Configuration:
    """Read every setting: flag, then environment, then file, then default.

    Args:
        flags: texts by key, from a command line.
        environ: the environment; `os.environ` by default.

    Raises:
        ConfigurationError: a value cannot be used, a key is unknown, or the named file cannot be read.
    """
    environment = os.environ if environ is None else environ
    _warn_of_unknown(environment)
    path, file_values = _file_values(environment)
    values, origins = {}, {}
    for setting in SETTINGS:
        sources = (
            ((flags or {}).get(setting.key), f"flag {setting.flag}"),
            (environment.get(setting.variable), f"environment variable {setting.variable}"),
            (file_values.get(setting.key), f"{setting.key} in {path}"),
        )
        # An empty variable is an unset one, as compose files and unit files write it.
        text, origin = next(((t, o) for t, o in sources if t not in (None, "")), (None, "default"))
        values[setting.key] = setting.default if text is None else _converted(setting, text, origin)
        origins[setting.key] = origin
    return Configuration(values, origins)


def _warn_of_unknown(environ: Mapping[str, str]) -> None:
    """Warn of variables that nothing reads, once each: a misspelt one would be ignored in silence."""
    if PACKAGE_PROCESS_VARIABLE in environ:  # its worker has said so
        return
    known = {"MEMPRESSURE_CONFIG", OBSERVED_IN, *(setting.variable for setting in SETTINGS)}
    for name in sorted(environ.keys() - known - _told):
        if name.startswith(("MEMPRESSURE_", _UNLOADING)):
            _told.add(name)
            import difflib  # both deferred: usually there is nothing to tell
            import logging

            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else "docs/configuration.md lists those that are"
            logging.getLogger(__name__).warning("environment variable %s is not one of mempressure's: %s", name, hint)


_told: set[str] = set()


def _converted(setting: Setting, text: str, origin: str) -> Any:
    try:
        return setting.convert(text)
    except ValueError as error:
        raise ConfigurationError(f"{setting.variable}={text!r:.200} ({origin}) cannot be used; send {error}") from None


def _file_values(environ: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    path = environ.get("MEMPRESSURE_CONFIG") or DEFAULT_FILE
    try:
        os.stat(path)
        from mempressure.config.files import read_text  # most workers have no file

        text = read_text(path)
    except FileNotFoundError:
        if environ.get("MEMPRESSURE_CONFIG"):
            raise ConfigurationError(f"MEMPRESSURE_CONFIG={path}: there is no such file") from None
        return path, {}
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    content = _parsed(path, text)
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} holds a {type(content).__name__}; send keys and values, one setting each")
    if unknown := sorted(str(key) for key in content if key not in _BY_KEY):
        raise ConfigurationError(f"{path}: unknown key {', '.join(unknown)}; known are {', '.join(_BY_KEY)}")
    return path, {key: _as_text(value, f"{key} in {path}") for key, value in content.items()}


def _as_text(value: Any, origin: str) -> str:
    if value is None:  # `key:` with nothing behind it is unset, as an empty variable is
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_as_text(part, origin) for part in value)
    if isinstance(value, dict):
        raise ConfigurationError(f"{origin} holds keys and values of its own; send one value")
    return str(value)


def _parsed(path: str, text: str) -> Any:
    from mempressure.config.files import parse_json, parse_yaml

    try:
        return parse_json(text or "{}")
    except ValueError as error:
        if path.endswith(".json"):
            raise ConfigurationError(f"{path} is no JSON: {error}") from None
    try:
        content = parse_yaml(text)
    except ImportError:
        raise ConfigurationError(f"{path} is no JSON; to read YAML: pip install PyYAML") from None
    except ValueError as error:
        raise ConfigurationError(f"{path} is neither JSON nor YAML: {error}") from None
    return {} if content is None else content


def _program(command: str) -> str:
    """Return a program's name from its `sys.argv[0]`: gunicorn of /usr/bin/gunicorn and of .../gunicorn/__main__.py."""
    folder, name = os.path.split(command)
    name = name.removesuffix(".py")
    if name == "__main__":
        name = os.path.basename(folder)
    # `python -c` leaves "-c"; and a name of undecodable bytes could be shown nowhere.
    return name[:100] if name.strip() and not name.startswith("-") and name.isprintable() else "python"


def _default_runtime_directory() -> Path:
    if os.geteuid() == 0:
        return Path("/run/mempressure")
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base, "mempressure")
    return Path(f"/tmp/mempressure-{os.geteuid()}")  # noqa: S108 -- what XDG leaves; owner and mode are checked


def _default_state_directory() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/mempressure")
    base = os.environ.get("XDG_STATE_HOME") or Path(os.environ.get("HOME") or "/", ".local/state")
    return Path(base, "mempressure")


def _default_cache_directory() -> Path:
    if os.geteuid() == 0:
        return Path("/var/cache/mempressure")
    base = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or "/", ".cache")
    return Path(base, "mempressure")
