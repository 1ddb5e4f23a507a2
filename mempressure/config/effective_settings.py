"""Every setting with the value that holds, as text, and where it came from: a pure function."""

from typing import Any, TypedDict

from mempressure.config.configuration import SETTINGS, Configuration
from mempressure.config.runtime_settings import SWITCHES, Settings
from mempressure.config.thresholds import THRESHOLD_NAMES

THROUGH_THE_API = "set through the API"
DEFAULT = "default"

_EFFECTIVE = {
    "MEMPRESSURE_NODE": "node",
    "MEMPRESSURE_RUNTIME_DIR": "runtime_directory",
    "MEMPRESSURE_STATE_DIR": "state_directory",
    "MEMPRESSURE_CACHE_DIR": "cache_directory",
}
"""Settings whose default depends on the machine and the user: the properties that tell it."""


class SettingDict(TypedDict):
    """One setting: `value` as it would be written in the environment, `origin` where it came from."""

    name: str
    value: str
    origin: str


def settings_in_force(configuration: Configuration, settings: Settings) -> list[SettingDict]:
    """Return what holds now: first what people can set at run time, then every variable of the configuration.

    Args:
        configuration: from flags, the environment and the file.
        settings: what was set through the API, or their defaults.
    """
    threshold, hysteresis = SETTINGS[0].key, "mempressure_hysteresis"
    found: list[SettingDict] = []
    for name in THRESHOLD_NAMES:
        unset = configuration.origins[threshold] if name == "unload_packages" else DEFAULT
        origin = THROUGH_THE_API if "thresholds" in settings.chosen else unset
        found.append(_setting(name, settings.thresholds.enter(name), origin))
    found.append(_setting("hysteresis", settings.thresholds.hysteresis, configuration.origins[hysteresis]))
    for switch in SWITCHES:
        origin = THROUGH_THE_API if switch in settings.chosen else DEFAULT
        found.append(_setting(switch, getattr(settings, switch), origin))
    for (app, package), keep in sorted(settings.preferences.items()):
        found.append(_setting(f"keep_loaded of {package} in {app or 'every app'}", keep, THROUGH_THE_API))
    for setting in SETTINGS:
        value = getattr(configuration, _EFFECTIVE.get(setting.variable, setting.key))
        found.append(_setting(setting.variable, value, configuration.origins[setting.key]))
    return found


def _setting(name: str, value: Any, origin: str) -> SettingDict:
    return {"name": name, "value": _as_text(value), "origin": origin}


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
