"""The configuration: the table of all settings, and their values from flags, the environment, a file or defaults.

Every setting is an environment variable. Its lower-case name is its key in the file that `MEMPRESSURE_CONFIG` names
(YAML or JSON). docs/configuration.md describes each. A setting is read as `configuration.<attribute>`. Settings made
through the API at run time are separate: `mempressure.config.runtime_settings`.
"""

import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mempressure.config.converters import absolute_path, boolean, choice, label, number, size, subset, uids, url, whole
from mempressure.errors import ConfigurationError
from mempressure.mechanisms import NAMES
from mempressure.package_process import identity

if TYPE_CHECKING:
    from mempressure.config.thresholds import Thresholds
    from mempressure.log_once import LogOnce

OBSERVED_IN = "MEMPRESSURE_OBSERVED_IN"
"""Set by `mempressure run` for the processes of its command: the directory for what is observed in them."""
MANAGED = "MEMPRESSURE_MANAGED"
"""Set by `mempressure run --manage` for the processes of its command, to `manage`, `dry-run` or `check`."""
MANAGED_PID = "MEMPRESSURE_MANAGED_PID"
"""Set beside it: the process of the command itself."""
NOT_SHARED = "MEMPRESSURE_NOT_SHARED"
"""Set where a server is started again without sharing: what stood in its way."""

DEFAULT_FILE = "/etc/mempressure/mempressure.yml"

RECYCLE_CHOICES = ("normal", "high", "emergency", "never")
DRY_RUN_CHOICES = (*NAMES, "custom")

_T = TypeVar("_T")
_UNLOADING = "LAZY_LOADING_UNLOADING_"
_FLAGS = {"MEMPRESSURE_ACTIONS_FILE": "--actions.file"}
"""Flags with names of their own, in the style of Prometheus exporters."""


class Setting(Generic[_T]):
    """One row of the table, and a read-only attribute of `Configuration`.

    Args:
        variable: the environment variable.
        convert: returns the value of a text; raises ValueError with what to send instead.
        default: the value where nothing is set, or a function that returns it.
        meaning: what the setting does, in a few words.

    Attributes:
        name: of the attribute of `Configuration`.
    """

    __slots__ = ("_default", "convert", "meaning", "name", "variable")

    def __init__(
        self, variable: str, convert: Callable[[str], _T], default: _T | Callable[[], _T], meaning: str
    ) -> None:
        self.variable = variable
        self.convert = convert
        self._default = default
        self.meaning = meaning

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, configuration: "Configuration", owner: type) -> _T:
        try:
            value: _T = configuration._given[self.name][0]  # noqa: SLF001 -- the table and its values are one thing
        except KeyError:
            return self.default
        return value

    @property
    def default(self) -> _T:
        """Return the value where nothing is set, on this machine and for this user."""
        return self._default() if callable(self._default) else self._default

    @property
    def key(self) -> str:
        """Return its key in a configuration file."""
        return self.variable.lower()

    @property
    def flag(self) -> str:
        """Return its command line flag, for programs that have one."""
        return _FLAGS.get(self.variable) or "--" + self.key.removeprefix("mempressure_").replace("_", "-")


def _main_program() -> str:
    """Return the main program's name: gunicorn for /usr/bin/gunicorn and for .../gunicorn/__main__.py."""
    folder, name = os.path.split(sys.argv[0] if sys.argv else "")
    name = name.removesuffix(".py")
    if name == "__main__":
        name = os.path.basename(folder)
    # With `python -c` it is "-c"; a name with undecodable bytes cannot be displayed.
    return name[:100] if name.strip() and not name.startswith("-") and name.isprintable() else "python"


def _default_runtime_directory() -> Path:
    if os.geteuid() == 0:
        return Path("/run/mempressure")
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base, "mempressure")
    return Path(f"/tmp/mempressure-{os.geteuid()}")  # noqa: S108 -- without XDG; owner and mode are checked


def _default_state_directory() -> Path:
    return _user_directory("/var/lib/mempressure", "XDG_STATE_HOME", ".local/state")


def _default_cache_directory() -> Path:
    return _user_directory("/var/cache/mempressure", "XDG_CACHE_HOME", ".cache")


def _user_directory(of_root: str, variable: str, in_home: str) -> Path:
    """Return root's directory by the FHS, another user's by XDG."""
    if os.geteuid() == 0:
        return Path(of_root)
    return Path(os.environ.get(variable) or Path(os.environ.get("HOME") or "/", in_home), "mempressure")


# Deferred: the thresholds are 34 KB, paid where a process watches the memory itself.
def _default_unload_packages() -> float:
    from mempressure.config.thresholds import Thresholds

    return Thresholds().unload_packages


def _default_hysteresis() -> float:
    from mempressure.config.thresholds import DEFAULT_HYSTERESIS

    return DEFAULT_HYSTERESIS


def _default_critical_ratio() -> float:
    from mempressure.config.thresholds import DEFAULT_CRITICAL_RATIO

    return DEFAULT_CRITICAL_RATIO


_ratio = number(0, 1)
_seconds = number(0, 86400)


class Configuration:
    """The value of every setting, read-only, and where each came from.

    Args:
        given: value and origin of each setting that is not at its default, by the name of its attribute.
    """

    __slots__ = ("_given",)

    unload_packages = Setting(
        _UNLOADING + "MEMORY_PRESSURE_THRESHOLD",
        _ratio,
        _default_unload_packages,
        "usage at which packages are unloaded",
    )
    package_timeout = Setting(
        _UNLOADING + "MEMORY_PRESSURE_TIMEOUT", _seconds, 60.0, "seconds without use that make a package idle"
    )
    unloading_enabled = Setting(
        _UNLOADING + "ENABLE_MEMORY_PRESSURE_UNLOADING", boolean, True, "unload at all; false only reports"
    )
    usage_pattern = Setting(
        _UNLOADING + "ENABLE_USAGE_PATTERN_UNLOADING", boolean, True, "prefer what is used seldom and cheap to reload"
    )
    given_app = Setting("MEMPRESSURE_APP", label, "", "the application's name; default: the main program's")
    budget = Setting("MEMPRESSURE_BUDGET", size, 0, "memory the application may use; 0: no budget")
    share = Setting(
        "MEMPRESSURE_SHARE", boolean, False, "workers that `run --manage` manages share what is loaded before the fork"
    )
    admission = Setting("MEMPRESSURE_ADMISSION", boolean, False, "refuse loads that would enter emergency")
    process_start_timeout = Setting(
        "MEMPRESSURE_PROCESS_START_TIMEOUT", number(0.1, 86400), 60.0, "seconds a package process may take to start"
    )
    message_limit = Setting(
        "MEMPRESSURE_MESSAGE_LIMIT", size, 1 << 30, "what arguments or result of an isolated call may take; 0: no limit"
    )
    actuator_url = Setting("MEMPRESSURE_ACTUATOR", url, "http://127.0.0.1:10062", "where the actuator is")
    node = Setting(
        "MEMPRESSURE_NODE", label, lambda: os.uname().nodename, "this machine's name; default: its host name"
    )
    runtime_directory = Setting(
        "MEMPRESSURE_RUNTIME_DIR", absolute_path, _default_runtime_directory, "agents' state files and sockets"
    )
    state_directory = Setting(
        "MEMPRESSURE_STATE_DIR", absolute_path, _default_state_directory, "settings, token and store"
    )
    cache_directory = Setting(
        "MEMPRESSURE_CACHE_DIR", absolute_path, _default_cache_directory, "verdicts that rehearsals led to"
    )
    trusted_uids = Setting(
        "MEMPRESSURE_TRUSTED_UIDS", uids, (), "users besides root and its own that may give a worker orders"
    )
    hysteresis = Setting(
        "MEMPRESSURE_HYSTERESIS", number(0, 0.5), _default_hysteresis, "how far below its threshold a level is left"
    )
    critical_ratio = Setting(
        "MEMPRESSURE_CRITICAL_RATIO", _ratio, _default_critical_ratio, "usage from which the strategy is critical"
    )
    alert_cooldown = Setting(
        "MEMPRESSURE_ALERT_COOLDOWN", _seconds, 300.0, "seconds before the same alert is logged again"
    )
    recycle = Setting(
        "MEMPRESSURE_RECYCLE",
        choice(*RECYCLE_CHOICES),
        "high",
        "from when on workers are recycled: strategy normal or high, the threshold emergency, or never",
    )
    recycle_min_lifetime = Setting(
        "MEMPRESSURE_RECYCLE_MIN_LIFETIME", _seconds, 60.0, "seconds a worker lives before it may be recycled"
    )
    recycle_growth = Setting(
        "MEMPRESSURE_RECYCLE_GROWTH",
        size,
        None,
        "growth for which a busy worker is replaced; 0: never; default: half of a fresh worker, 32MiB at least",
    )
    longest_request = Setting(
        "MEMPRESSURE_LONGEST_REQUEST", _seconds, 0.0, "seconds the longest request takes; 0: not known"
    )
    recycles_per_minute = Setting(
        "MEMPRESSURE_RECYCLES_PER_MINUTE", whole(0, 1000), 10, "workers of an app recycled in a minute at most"
    )
    futile_cycles = Setting(
        "MEMPRESSURE_FUTILE_CYCLES", whole(1, 1000), 5, "cycles in a row that bring nothing before it pauses"
    )
    futile_pause = Setting("MEMPRESSURE_FUTILE_PAUSE", _seconds, 60.0, "seconds that such a pause lasts at most")
    threshold_floor = Setting(
        "MEMPRESSURE_THRESHOLD_FLOOR", _ratio, 0.3, "the lowest threshold that may be set through the API"
    )
    dry_run = Setting(
        "MEMPRESSURE_DRY_RUN", subset(*DRY_RUN_CHOICES), (), "mechanisms that are decided on but not carried out"
    )
    actions_file = Setting("MEMPRESSURE_ACTIONS_FILE", absolute_path, None, "the operator's own actions; default: none")
    heartbeat_interval = Setting(
        "MEMPRESSURE_HEARTBEAT_INTERVAL", number(0.1, 3600), 5.0, "seconds between heartbeats of Alertmanager"
    )
    lease = Setting(
        "MEMPRESSURE_LEASE", number(1, 86400), 150.0, "seconds an alert keeps the unloading going unless repeated"
    )
    history_days = Setting(
        "MEMPRESSURE_HISTORY_DAYS", number(0.01, 3650), 30.0, "days the actuator remembers what it did"
    )

    def __init__(self, given: Mapping[str, tuple[Any, str]]) -> None:
        self._given = given

    @property
    def app(self) -> str:
        """Return the application's name: `given_app`, else the main program's name."""
        return self.given_app or _main_program()

    @property
    def thresholds(self) -> "Thresholds":
        """Return the thresholds that hold until others are set through the API.

        Raises:
            ConfigurationError: unload_packages or the hysteresis does not fit the other defaults.
        """
        from mempressure.config.thresholds import Thresholds

        try:
            return Thresholds(unload_packages=self.unload_packages, hysteresis=self.hysteresis)
        except ConfigurationError as error:
            variable, others = _UNLOADING + "MEMORY_PRESSURE_THRESHOLD", Thresholds()
            raise ConfigurationError(
                f"{variable}={self.unload_packages!r} ({self.origin('unload_packages')}) does not fit the other "
                f"thresholds; send a ratio above {others.warning} and below {others.aggressive_unload}"
            ) from error

    def origin(self, name: str) -> str:
        """Return where the value of attribute `name` came from: a flag, variable or file, or "default"."""
        return self._given[name][1] if name in self._given else "default"


SETTINGS: tuple[Setting[Any], ...] = tuple(each for each in vars(Configuration).values() if isinstance(each, Setting))
"""Every setting there is, in the order of the documentation."""


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
    path, in_file = _file_texts(environment)
    given = {}
    for setting in SETTINGS:
        # An empty text counts as not set: compose files and unit files write unset variables so.
        if text := (flags or {}).get(setting.key):
            origin = f"flag {setting.flag}"
        elif text := environment.get(setting.variable):
            origin = f"environment variable {setting.variable}"
        elif text := in_file.get(setting.key):
            origin = f"{setting.key} in {path}"
        else:
            continue
        try:
            given[setting.name] = setting.convert(text), origin
        except ValueError as error:
            message = f"{setting.variable}={text!r:.200} ({origin}) cannot be used; send {error}"
            raise ConfigurationError(message) from None
    return Configuration(given)


def _warn_of_unknown(environ: Mapping[str, str]) -> None:
    """Log once each variable that is named like a setting and is none: a misspelt one would be ignored silently."""
    if identity.packages() is not None:  # the worker has logged them
        return
    names = {name for name in environ if name.startswith(("MEMPRESSURE_", _UNLOADING))}
    known = {
        "MEMPRESSURE_CONFIG",
        OBSERVED_IN,
        MANAGED,
        MANAGED_PID,
        NOT_SHARED,
        *(setting.variable for setting in SETTINGS),
    }
    for name in sorted(names - known):
        import difflib  # deferred: usually there is no such variable

        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "docs/configuration.md lists those that are"
        _once().warning(name, "environment variable %s is not one of mempressure's: %s", name, hint)


@cache
def _once() -> "LogOnce":
    from mempressure.log_once import LogOnce

    return LogOnce(__name__)


def _file_texts(environ: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the path of the configuration file, and the texts in it by key; none where the default file is absent."""
    path = environ.get("MEMPRESSURE_CONFIG") or DEFAULT_FILE
    if path == os.devnull:  # an empty file, and reading it would load modules that a worker has no other use for
        return path, {}
    if not environ.get("MEMPRESSURE_CONFIG"):
        try:
            os.stat(path)
        except FileNotFoundError:
            return path, {}
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    from mempressure.config.configuration_file import read_texts  # most workers have no file

    return path, read_texts(path, keys=[setting.key for setting in SETTINGS])
