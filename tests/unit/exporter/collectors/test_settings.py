import pytest

from mempressure.config.runtime_settings import with_thresholds
from mempressure.config.settings_file import SettingsFile
from mempressure.errors import ConfigurationError
from mempressure_exporter.collectors import Collectors
from tests.support.builders.samples import series_of, succeeded


def test_thresholds_and_switches_show_at_the_next_scrape(scrape, configure, state_dir):
    assert scrape()["threshold_ratio", "warning", "enter"] == 0.6
    new = {"warning": 0.5, "unload_packages": 0.7, "aggressive_unload": 0.8, "emergency": 0.95}
    settings = SettingsFile(state_dir, defaults=configure().thresholds)
    settings.update(lambda now: with_thresholds(now, new))
    found = scrape()
    ratios = {name[1:]: value for name, value in found.items() if name[0] == "threshold_ratio"}
    assert ratios == {
        **{(name, "enter"): value for name, value in new.items()},
        **{(name, "exit"): pytest.approx(value - 0.05) for name, value in new.items()},
    }
    assert (found["alerts_enabled",], found["suggestions_enabled",], found["unloading_enabled",]) == (1, 1, 1)
    (state_dir / "settings.json").unlink()
    assert scrape()["threshold_ratio", "warning", "enter"] == 0.6


def test_damaged_settings_are_counted_at_every_scrape_and_logged_once(scrape, state_dir, caplog):
    path = state_dir / "settings.json"
    assert scrape()["exporter_problems_total", "settings_error"] == 0
    path.write_text("{")
    for count in (1, 2):
        found = scrape()
        assert found["exporter_problems_total", "settings_error"] == count
        assert found["threshold_ratio", "warning", "enter"] == 0.6
        assert "settings" in succeeded(found)
    assert len([message for message in caplog.messages if str(path) in message]) == 1
    path.unlink()
    assert scrape()["exporter_problems_total", "settings_error"] == 2


def test_configured_settings_show(configure, proc):
    configuration = configure(
        LAZY_LOADING_UNLOADING_ENABLE_MEMORY_PRESSURE_UNLOADING="false",
        LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD="0.7",
        MEMPRESSURE_HYSTERESIS="0.1",
    )
    found = series_of(Collectors(configuration, proc=proc.path))
    assert found["unloading_enabled",] == 0
    assert found["threshold_ratio", "unload_packages", "enter"] == 0.7
    assert found["threshold_ratio", "unload_packages", "exit"] == 0.6


def test_unusable_thresholds_are_refused_at_the_start(configure):
    with pytest.raises(ConfigurationError, match=r"LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD=0\.3"):
        Collectors(configure(LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD="0.3"))
