"""The settings in force: each with its value as text and where it came from, for `mempressure status` and the API."""

from typing import Any, TypedDict

from mempressure.config.configuration import SETTINGS, Configuration
from mempressure.config.runtime_settings import SWITCHES, Settings
from mempressure.config.thresholds import THRESHOLD_NAMES

THROUGH_THE_API = "set through the API"
DEFAULT = "default"


class SettingDict(TypedDict):
    """One setting: `value` as text for an environment variable, `origin` the source of the value."""

    name: str
    value: str
    origin: str


def settings_in_force(configuration: Configuration, settings: Settings) -> list[SettingDict]:
    """Return every setting: first what can be set at run time, then every variable of the configuration.

    Args:
        configuration: from flags, the environment and the file.
        settings: what was set through the API, or their defaults.
    """
    found: list[SettingDict] = []
    for name in THRESHOLD_NAMES:
        unset = configuration.origin(name) if name == "unload_packages" else DEFAULT
        origin = THROUGH_THE_API if "thresholds" in settings.chosen else unset
        found.append(_setting(name, settings.thresholds.enter(name), origin))
    found.append(_setting("hysteresis", settings.thresholds.hysteresis, configuration.origin("hysteresis")))
    for switch in SWITCHES:
        origin = THROUGH_THE_API if switch in settings.chosen else DEFAULT
        found.append(_setting(switch, getattr(settings, switch), origin))
    for (app, package), keep in sorted(settings.preferences.items()):
        found.append(_setting(f"keep_loaded of {package} in {app or 'every app'}", keep, THROUGH_THE_API))
    for setting in SETTINGS:
        value = getattr(configuration, setting.name)
        found.append(_setting(setting.variable, value, configuration.origin(setting.name)))
    return found


def _setting(name: str, value: Any, origin: str) -> SettingDict:
    return {"name": name, "value": _as_text(value), "origin": origin}


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
