"""Settings made at run time through the API: thresholds, switches and preferences. `settings_file` stores them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from mempressure.config.thresholds import Thresholds

Switch = Literal["alerts_enabled", "suggestions_enabled"]
SWITCHES: tuple[Switch, ...] = get_args(Switch)


@dataclass(frozen=True, slots=True)
class Settings:
    """The run-time settings; `preferences` maps (app, package) to `keep_loaded`, where the app "" means every app."""

    thresholds: Thresholds
    alerts_enabled: bool = True
    suggestions_enabled: bool = True
    preferences: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    chosen: frozenset[str] = field(default=frozenset(), compare=False)
    """Which of thresholds, alerts_enabled and suggestions_enabled were set through the API.

    They override the configuration, and only they are stored.
    """

    def keep_loaded(self, app: str, package: str, *, declared: bool) -> bool:
        """Return whether a package is to stay loaded: as set for the app, else for every app, else as `declared`."""
        for key in ((app, package), ("", package)):
            if key in self.preferences:
                return self.preferences[key]
        return declared


def with_thresholds(settings: Settings, values: Mapping[str, object]) -> Settings:
    """Return `settings` with the four thresholds replaced.

    Raises:
        ConfigurationError: they cannot be used together.
    """
    hysteresis = settings.thresholds.hysteresis
    thresholds = Thresholds.from_mapping(values, hysteresis=hysteresis)
    return replace(settings, thresholds=thresholds, chosen=settings.chosen | {"thresholds"})


def with_switch(settings: Settings, name: Switch, *, on: bool) -> Settings:
    """Return `settings` with one of the two switches turned on or off."""
    chosen = settings.chosen | {name}
    if name == "alerts_enabled":
        return replace(settings, alerts_enabled=on, chosen=chosen)
    return replace(settings, suggestions_enabled=on, chosen=chosen)


def with_preference(settings: Settings, *, app: str, package: str, keep_loaded: bool) -> Settings:
    """Return `settings` with one preference set; the app "" means every app."""
    return replace(settings, preferences={**settings.preferences, (app, package): keep_loaded})
