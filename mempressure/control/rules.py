"""The operator's rules for unloading, put together from the configuration and the run-time settings."""

from mempressure.config.configuration import Configuration
from mempressure.config.runtime_settings import Settings
from mempressure.config.thresholds import Thresholds
from mempressure.decide.eligibility import Rules


def rules(configuration: Configuration, settings: Settings, thresholds: Thresholds) -> Rules:
    """Return the rules of a configuration, of what people set at run time, and of the thresholds that hold."""
    return Rules(
        thresholds=thresholds,
        keep_loaded=lambda app, package, declared: settings.keep_loaded(app, package, declared=declared),
        recycle_from=configuration.recycle,
        recycle_min_lifetime=configuration.recycle_min_lifetime,
        recycle_growth=configuration.recycle_growth,
        unloading_enabled=configuration.unloading_enabled,
        usage_pattern=configuration.usage_pattern,
    )
