"""Collector of settings: thresholds and switches, as configured or set at run time."""

from collections.abc import Iterator, Sequence

from mempressure.config.configuration import Configuration
from mempressure.config.runtime_settings import Settings
from mempressure.config.settings_file import SettingsFile
from mempressure.config.thresholds import THRESHOLD_NAMES
from mempressure_exporter.exposition import Sample
from mempressure_exporter.problems import Problems


class SettingsCollector:
    """Collects the settings in force; the constructor raises ConfigurationError for unusable configured thresholds."""

    def __init__(self, configuration: Configuration, problems: Problems) -> None:
        self._configuration = configuration
        self._problems = problems
        self._settings = SettingsFile(configuration.state_directory, defaults=configuration.thresholds)
        self._shown: Settings | None = None
        self._samples: list[Sample] = []
        """Those of `_shown`, kept because settings seldom change."""

    def collect(self) -> Sequence[Sample]:
        """Return the samples of one scrape; raises OSError where the settings file exists and cannot be read."""
        settings = self._settings.read()
        if self._settings.problem is not None:  # which `SettingsFile` has logged
            self._problems.count(self._settings.problem)
        if settings is not self._shown:
            self._samples, self._shown = list(self._samples_of(settings)), settings
        return self._samples

    def _samples_of(self, settings: Settings) -> Iterator[Sample]:
        for name in THRESHOLD_NAMES:
            yield "mempressure_threshold_ratio", (name, "enter"), settings.thresholds.enter(name)
            yield "mempressure_threshold_ratio", (name, "exit"), settings.thresholds.exit(name)
        unloading = self._configuration.unloading_enabled
        yield "mempressure_alerts_enabled", (), settings.alerts_enabled
        yield "mempressure_suggestions_enabled", (), settings.suggestions_enabled
        yield "mempressure_unloading_enabled", (), unloading
