import pytest

from mempressure.config.configuration import SETTINGS, load_configuration
from mempressure.config.effective_settings import settings_in_force
from mempressure.config.runtime_settings import SWITCHES, Settings, with_preference, with_switch, with_thresholds
from mempressure.config.settings_file import SettingsFile
from mempressure.config.thresholds import THRESHOLD_NAMES, Thresholds

THRESHOLD = "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD"


def told(configuration, settings=None):
    settings = settings or Settings(configuration.thresholds)
    return {row["name"]: (row["value"], row["origin"]) for row in settings_in_force(configuration, settings)}


def test_every_setting_is_told_once_with_its_default():
    rows = settings_in_force(load_configuration(environ={}), Settings(Thresholds()))
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names))
    assert set(names) > {setting.variable for setting in SETTINGS}
    assert {row["origin"] for row in rows} == {"default"}


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("MEMPRESSURE_BUDGET", "1KiB", "1024"),
        ("MEMPRESSURE_ADMISSION", "on", "true"),
        ("MEMPRESSURE_TRUSTED_UIDS", "1 2", "1,2"),
        ("MEMPRESSURE_LEASE", "90.5", "90.5"),
        ("MEMPRESSURE_STATE_DIR", "/s", "/s"),
    ],
)
def test_values_are_told_as_the_environment_takes_them(variable, text, value):
    configuration = load_configuration(environ={variable: text})
    assert told(configuration)[variable] == (value, f"environment variable {variable}")
    assert told(load_configuration(environ={variable: value})) == told(configuration)


def test_a_default_that_depends_on_the_machine_is_told_as_it_is_here(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert told(load_configuration(environ={}))["MEMPRESSURE_STATE_DIR"] == ("/var/lib/mempressure", "default")


def test_a_threshold_of_the_environment_holds_until_one_is_set(tmp_path):
    configuration = load_configuration(environ={THRESHOLD: "0.7"})
    file = SettingsFile(tmp_path / "state", defaults=configuration.thresholds)
    assert told(configuration, file.read())["unload_packages"] == ("0.7", f"environment variable {THRESHOLD}")
    assert told(configuration, file.read())["warning"] == ("0.6", "default")
    written = file.update(lambda settings: with_preference(settings, app="", package="pandas", keep_loaded=True))
    for settings in (written, SettingsFile(tmp_path / "state", defaults=configuration.thresholds).read()):
        rows = told(configuration, settings)
        assert rows["unload_packages"] == ("0.7", f"environment variable {THRESHOLD}")
        assert rows["alerts_enabled"] == ("true", "default")
        assert rows["keep_loaded of pandas in every app"] == ("true", "set through the API")
    file.update(lambda settings: with_thresholds(settings, Thresholds().as_dict()))
    rows = told(configuration, file.read())
    assert {rows[name] for name in THRESHOLD_NAMES} == {
        (f"{value:g}", "set through the API") for value in Thresholds().as_dict().values()
    }
    assert rows["alerts_enabled"] == ("true", "default")


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_that_was_turned_sets_nothing_else(tmp_path, switch):
    configuration = load_configuration(environ={THRESHOLD: "0.7"})
    file = SettingsFile(tmp_path / "state", defaults=configuration.thresholds)
    rows = told(configuration, file.update(lambda settings: with_switch(settings, switch, on=False)))
    assert rows[switch] == ("false", "set through the API")
    assert [name for name, (_, origin) in rows.items() if origin == "set through the API"] == [switch]
    # And the environment's threshold moves what holds, still.
    later = SettingsFile(tmp_path / "state", defaults=Thresholds(unload_packages=0.75)).read()
    assert later.thresholds.unload_packages == 0.75


def test_a_damaged_file_sets_nothing(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    assert SettingsFile(tmp_path, defaults=Thresholds()).read().chosen == set()
