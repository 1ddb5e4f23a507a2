import copy
import json
import os
import re
import sys
from functools import cache
from pathlib import Path

import pytest
from mypy import api

from mempressure.config import configuration
from mempressure.config.configuration import DRY_RUN_CHOICES, RECYCLE_CHOICES, SETTINGS, load_configuration
from mempressure.errors import ConfigurationError
from mempressure.log_once import LogOnce
from mempressure.package_process import identity

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"

# For each setting three texts with their values, one a source, and one that cannot be used with what to send instead.
RATIO = ([("0.7", 0.7), ("0.75", 0.75), ("0.82", 0.82)], "1.5", "a number from 0 to 1")
SECONDS = ([("70", 70.0), ("80.5", 80.5), ("90", 90.0)], "-1", "a number from 0 to 86400")
SWITCH = ([("false", False), ("on", True), ("0", False)], "maybe", "true or false")
NAME = ([("shop", "shop"), ("shop 2", "shop 2"), ("läden", "läden")], "a\tb", "a name of 1 to 100 printable characters")
FOLDER = ([("/a", Path("/a")), ("/b c", Path("/b c")), ("/d", Path("/d"))], "relative", "an absolute path")
EXAMPLES = {
    "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD": RATIO,
    "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT": SECONDS,
    "LAZY_LOADING_UNLOADING_ENABLE_MEMORY_PRESSURE_UNLOADING": SWITCH,
    "LAZY_LOADING_UNLOADING_ENABLE_USAGE_PATTERN_UNLOADING": SWITCH,
    "MEMPRESSURE_APP": NAME,
    "MEMPRESSURE_BUDGET": (
        [("1KiB", 1024), ("2KiB", 2048), ("3000", 3000)],
        "much",
        "a size from 0 to .* such as 512MiB",
    ),
    "MEMPRESSURE_SHARE": SWITCH,
    "MEMPRESSURE_ADMISSION": SWITCH,
    "MEMPRESSURE_ACTUATOR": (
        [("n1:80", "http://n1:80"), ("https://n2:443/", "https://n2:443"), ("[::1]:1", "http://[::1]:1")],
        "ftp://n1:21",
        "HOST:PORT, http://HOST:PORT or https://HOST:PORT",
    ),
    "MEMPRESSURE_NODE": NAME,
    "MEMPRESSURE_RUNTIME_DIR": FOLDER,
    "MEMPRESSURE_STATE_DIR": FOLDER,
    "MEMPRESSURE_CACHE_DIR": FOLDER,
    "MEMPRESSURE_TRUSTED_UIDS": ([("1", (1,)), ("2,3", (2, 3)), ("4", (4,))], "root", "numeric user ids"),
    "MEMPRESSURE_HYSTERESIS": ([("0.1", 0.1), ("0.2", 0.2), ("0", 0.0)], "0.51", "a number from 0 to 0.5"),
    "MEMPRESSURE_CRITICAL_RATIO": RATIO,
    "MEMPRESSURE_ALERT_COOLDOWN": SECONDS,
    "MEMPRESSURE_RECYCLE": (
        [("never", "never"), ("normal", "normal"), ("emergency", "emergency")],
        "always",
        f"one of {', '.join(RECYCLE_CHOICES)}",
    ),
    "MEMPRESSURE_RECYCLE_GROWTH": (
        [("1KiB", 1024), ("2KiB", 2048), ("3000", 3000)],
        "much",
        "a size from 0 to .* such as 512MiB",
    ),
    "MEMPRESSURE_PROCESS_START_TIMEOUT": ([("1", 1.0), ("2", 2.0), ("3", 3.0)], "0", "a number from 0.1 to 86400"),
    "MEMPRESSURE_MESSAGE_LIMIT": (
        [("1KiB", 1024), ("2KiB", 2048), ("3000", 3000)],
        "much",
        "a size from 0 to .* such as 512MiB",
    ),
    "MEMPRESSURE_RECYCLE_MIN_LIFETIME": SECONDS,
    "MEMPRESSURE_LONGEST_REQUEST": SECONDS,
    "MEMPRESSURE_RECYCLES_PER_MINUTE": ([("1", 1), ("2.0", 2), ("0", 0)], "0.5", "a whole number from 0 to 1000"),
    "MEMPRESSURE_FUTILE_CYCLES": ([("1", 1), ("2", 2), ("3", 3)], "0", "a whole number from 1 to 1000"),
    "MEMPRESSURE_FUTILE_PAUSE": SECONDS,
    "MEMPRESSURE_THRESHOLD_FLOOR": RATIO,
    "MEMPRESSURE_DRY_RUN": (
        [("recycle, stop", ("stop", "recycle")), ("true", DRY_RUN_CHOICES), ("trim", ("trim",))],
        "recycle,everything",
        "true, false, or some of callbacks, trim, stop, release, recycle, custom",
    ),
    "MEMPRESSURE_ACTIONS_FILE": FOLDER,
    "MEMPRESSURE_HEARTBEAT_INTERVAL": ([("1", 1.0), ("2", 2.0), ("3", 3.0)], "0", "a number from 0.1 to 3600"),
    "MEMPRESSURE_HISTORY_DAYS": ([("1", 1.0), ("2", 2.0), ("0.5", 0.5)], "0", "a number from 0.01 to 3650"),
    "MEMPRESSURE_LEASE": ([("1", 1.0), ("2", 2.0), ("3", 3.0)], "0", "a number from 1 to 86400"),
}

DERIVED_DEFAULTS = {
    "MEMPRESSURE_RECYCLE_GROWTH": "half of a fresh worker, 32MiB at least",
    "MEMPRESSURE_APP": "the main program's name",
    "MEMPRESSURE_NODE": "this machine's host name",
    "MEMPRESSURE_RUNTIME_DIR": "`/run/mempressure` as root, else `$XDG_RUNTIME_DIR/mempressure`, "
    "else `/tmp/mempressure-UID`",
    "MEMPRESSURE_STATE_DIR": "`/var/lib/mempressure` as root, else `$XDG_STATE_HOME/mempressure`, "
    "else `~/.local/state/mempressure`",
    "MEMPRESSURE_CACHE_DIR": "`/var/cache/mempressure` as root, else `$XDG_CACHE_HOME/mempressure`, "
    "else `~/.cache/mempressure`",
}

XDG = {"XDG_RUNTIME_DIR": "/x", "XDG_STATE_HOME": "/y", "XDG_CACHE_HOME": "/z"}
TEMPORARY = "/tmp/mempressure-7"  # noqa: S108 -- compared, never used

every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.variable)


@pytest.fixture(autouse=True)
def no_file_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(configuration, "DEFAULT_FILE", str(tmp_path / "default.yml"))


@pytest.fixture
def write_file(tmp_path):
    def write(text, name="mempressure.yml"):
        path = tmp_path / name
        path.write_text(text)
        return {"MEMPRESSURE_CONFIG": str(path)}

    return write


@every_setting
def test_flag_then_environment_then_file_then_default(setting, write_file):
    (in_flag, flagged), (in_environment, exported), (in_file, filed) = EXAMPLES[setting.variable][0]
    flags = {setting.key: in_flag}
    file = write_file(json.dumps({setting.key: in_file}))
    exports = {setting.variable: in_environment}

    for sources, value, origin in (
        ({"environ": {}}, setting.default, "default"),
        ({"environ": file}, filed, f"{setting.key} in {file['MEMPRESSURE_CONFIG']}"),
        ({"environ": file | exports}, exported, f"environment variable {setting.variable}"),
        ({"environ": file | exports, "flags": flags}, flagged, f"flag {setting.flag}"),
        # What is empty is not set.
        ({"environ": file | {setting.variable: ""}, "flags": {setting.key: ""}}, filed, f"{setting.key} in "),
    ):
        loaded = load_configuration(**sources)
        assert getattr(loaded, setting.name) == value
        assert loaded.origin(setting.name).startswith(origin)
        assert {loaded.origin(other.name) for other in SETTINGS if other is not setting} == {"default"}


@every_setting
def test_an_error_names_variable_value_source_and_what_to_send(setting, write_file):
    _, bad, send = EXAMPLES[setting.variable]
    file = write_file(json.dumps({setting.key: bad}))
    for sources, origin in (
        ({"environ": file}, f"{setting.key} in {file['MEMPRESSURE_CONFIG']}"),
        ({"environ": {setting.variable: bad}}, f"environment variable {setting.variable}"),
        ({"environ": {}, "flags": {setting.key: bad}}, f"flag {setting.flag}"),
    ):
        message = rf"{setting.variable}={re.escape(repr(bad))} \({re.escape(origin)}\) cannot be used; send {send}"
        with pytest.raises(ConfigurationError, match=message):
            load_configuration(**sources)


@every_setting
def test_defaults_could_have_been_sent(setting):
    if setting.default not in ("", (), None):
        assert setting.convert(str(setting.default)) == setting.default


def test_environment_is_that_of_the_process(monkeypatch):
    monkeypatch.setenv("MEMPRESSURE_BUDGET", "1MiB")
    assert load_configuration().budget == 1 << 20


JSON = """\
{"lazy_loading_unloading_memory_pressure_threshold": 0.7, "mempressure_app": "shop", "mempressure_budget": 536870912,
 "lazy_loading_unloading_enable_memory_pressure_unloading": false, "mempressure_trusted_uids": [1000, 1001],
 "mempressure_node": null, "mempressure_runtime_dir": null}
"""

YAML = """\
lazy_loading_unloading_memory_pressure_threshold: 0.7
lazy_loading_unloading_enable_memory_pressure_unloading: no
mempressure_budget: 536870912
mempressure_trusted_uids: [1000, 1001]
mempressure_app: shop
mempressure_node:
mempressure_runtime_dir: ~
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [("mempressure.yml", YAML), ("any name", YAML), ("mempressure.json", JSON), ("mempressure.yml", JSON)],
)
def test_yaml_and_json(write_file, name, text):
    loaded = load_configuration(environ=write_file(text, name))
    assert loaded.thresholds.unload_packages == 0.7
    assert loaded.unloading_enabled is False
    assert loaded.budget == 512 << 20
    assert loaded.trusted_uids == (1000, 1001)
    assert loaded.app == "shop"
    assert loaded.origin("node") == loaded.origin("runtime_directory") == "default"


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "{}"])
def test_an_empty_file_sets_nothing(write_file, text):
    loaded = load_configuration(environ=write_file(text))
    assert {loaded.origin(setting.name) for setting in SETTINGS} == {"default"}


def test_the_default_file_is_read_and_named(tmp_path):
    (tmp_path / "default.yml").write_text("mempressure_lease: 5")
    loaded = load_configuration(environ={})
    assert loaded.lease == 5.0
    assert loaded.origin("lease") == f"mempressure_lease in {tmp_path / 'default.yml'}"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yml", "mempressure_bugdet: 5", "unknown key mempressure_bugdet; known are .*mempressure_budget"),
        ("a.yml", "1: 5", "unknown key 1; known are"),
        ("a.yml", "- mempressure_budget", "holds a list; send keys and values"),
        ("a.yml", "[]", "holds a list"),
        ("a.yml", "no", "holds a bool"),
        ("a.yml", "words", "holds a str"),
        ("a.yml", "a: [", "neither JSON nor YAML: .*"),
        ("a.yml", "mempressure_app: 2026-99-99", "neither JSON nor YAML: month must be in 1..12"),
        ("a.yml", "mempressure_app: {a: b}", "mempressure_app in .* send one value"),
        ("a.yml", "[" * 10_000, "neither JSON nor YAML"),
        ("a.yml", "mempressure_budget: 5\nmempressure_budget: 6", "'mempressure_budget' appears twice in line 2"),
        ("a.json", '{"mempressure_budget": 5, "mempressure_budget": 6}', "'mempressure_budget' appears twice"),
        ("a.json", "mempressure_budget: 5", "is not JSON: Expecting value: line 1 column 1"),
    ],
)
def test_a_file_that_cannot_be_used(write_file, name, text, message):
    environ = write_file(text, name)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_configuration(environ=environ)
    assert environ["MEMPRESSURE_CONFIG"] in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigurationError, match=f"MEMPRESSURE_CONFIG={tmp_path}/none: there is no such file"):
        load_configuration(environ={"MEMPRESSURE_CONFIG": f"{tmp_path}/none"})
    with pytest.raises(ConfigurationError, match=f"{tmp_path} cannot be read: .*directory"):
        load_configuration(environ={"MEMPRESSURE_CONFIG": str(tmp_path)})
    (tmp_path / "latin.yml").write_bytes("mempressure_app: läden".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"latin.yml cannot be read: .*utf-8"):
        load_configuration(environ={"MEMPRESSURE_CONFIG": str(tmp_path / "latin.yml")})


def test_yaml_without_pyyaml_says_what_to_install(write_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert load_configuration(environ=write_file('{"mempressure_lease": 5}')).lease == 5
    with pytest.raises(ConfigurationError, match="to read YAML: pip install PyYAML"):
        load_configuration(environ=write_file("mempressure_lease: 5"))


@pytest.mark.parametrize("text", ["0.6", "0.85", "0.2", "1"])
def test_a_threshold_that_does_not_fit_the_others(text):
    variable = "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD"
    message = rf"{variable}=.* \(environment variable {variable}\) .*send a ratio above 0.6 and below 0.85"
    with pytest.raises(ConfigurationError, match=message):
        _ = load_configuration(environ={variable: text}).thresholds


@pytest.mark.parametrize("hysteresis", ["0", "0.05", "0.5"])
def test_every_hysteresis_that_is_taken_fits_the_thresholds(hysteresis):
    assert load_configuration(environ={"MEMPRESSURE_HYSTERESIS": hysteresis}).thresholds.hysteresis == float(hysteresis)


@pytest.mark.parametrize(
    ("command", "app"),
    [
        ("/srv/shop/manage.py", "manage"),
        ("/usr/bin/gunicorn", "gunicorn"),
        ("/usr/lib/python3/site-packages/gunicorn/__main__.py", "gunicorn"),
        ("-c", "python"),
        ("-m", "python"),
        ("", "python"),
        ("/srv/" + "x" * 150, "x" * 100),
        (os.fsdecode(b"/srv/\xff.py"), "python"),
    ],
)
def test_the_app_is_named_after_the_main_program(monkeypatch, command, app):
    monkeypatch.setattr(sys, "argv", [command])
    assert load_configuration(environ={}).app == app
    assert load_configuration(environ={"MEMPRESSURE_APP": "shop"}).app == "shop"


def test_the_node_is_named_after_the_host():
    assert load_configuration(environ={}).node == os.uname().nodename
    assert load_configuration(environ={"MEMPRESSURE_NODE": "n1"}).node == "n1"


@pytest.mark.parametrize(
    ("uid", "environ", "runtime", "state", "cache"),
    [
        (0, XDG, "/run/mempressure", "/var/lib/mempressure", "/var/cache/mempressure"),
        (7, XDG, "/x/mempressure", "/y/mempressure", "/z/mempressure"),
        (7, {"HOME": "/ann"}, TEMPORARY, "/ann/.local/state/mempressure", "/ann/.cache/mempressure"),
        (7, {}, TEMPORARY, "/.local/state/mempressure", "/.cache/mempressure"),
    ],
)
def test_directories_follow_fhs_and_xdg(monkeypatch, uid, environ, runtime, state, cache):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    for name in (*XDG, "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    loaded = load_configuration(environ={})
    assert (str(loaded.runtime_directory), str(loaded.state_directory)) == (runtime, state)
    assert str(loaded.cache_directory) == cache
    loaded = load_configuration(environ={"MEMPRESSURE_RUNTIME_DIR": "/r", "MEMPRESSURE_STATE_DIR": "/s"})
    assert (str(loaded.runtime_directory), str(loaded.state_directory)) == ("/r", "/s")
    assert str(load_configuration(environ={"MEMPRESSURE_CACHE_DIR": "/c"}).cache_directory) == "/c"


@every_setting
def test_a_value_cannot_be_changed(setting):
    loaded = load_configuration(environ={})
    with pytest.raises(AttributeError):
        setattr(loaded, setting.name, setting.default)
    with pytest.raises(AttributeError):
        loaded.mempressure_budget = 5
    assert getattr(copy.copy(loaded), setting.name) == setting.default


def test_mypy_knows_the_type_of_each_value(tmp_path):
    source = tmp_path / "values.py"
    reveals = [f"reveal_type(c.{setting.name})" for setting in SETTINGS]
    header = "from mempressure.config.configuration import load_configuration"
    source.write_text("\n".join([header, "c = load_configuration()", *reveals]))
    answer, errors, _ = api.run([str(source), "--config-file", str(PAGE.parents[1] / "pyproject.toml")])
    revealed = re.findall(r'Revealed type is "([^"]+)"', answer)
    assert len(revealed) == len(SETTINGS), answer + errors
    assert not {"Any", "object"} & set(revealed)


def _documented():
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([a-z_]+)` \| (.+?) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    return {variable: (key, default, meaning) for variable, key, default, meaning in rows}


def _as_documented(setting):
    if setting.variable in DERIVED_DEFAULTS:
        return DERIVED_DEFAULTS[setting.variable]
    if setting.default in ((), None):
        return "none"
    if isinstance(setting.default, bool):
        return f"`{str(setting.default).lower()}`"
    return f"`{setting.default:g}`" if isinstance(setting.default, float) else f"`{setting.default}`"


def test_the_page_has_every_setting_in_order():
    assert list(_documented()) == [setting.variable for setting in SETTINGS]


@every_setting
def test_the_page_says_key_default_and_meaning(setting):
    key, default, meaning = _documented()[setting.variable]
    assert (key, default) == (setting.key, _as_documented(setting))
    assert len(meaning) > 20


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MEMPRESSURE_BUGDET", "did you mean MEMPRESSURE_BUDGET?"),
        ("MEMPRESSURE_RUNTIME_DIRECTORY", "did you mean MEMPRESSURE_RUNTIME_DIR?"),
        ("LAZY_LOADING_UNLOADING_TIMEOUT", "did you mean LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_TIMEOUT?"),
        ("MEMPRESSURE_QQQQQQQQQQQQQQQQQQQQ", "docs/configuration.md lists those that are"),
    ],
)
def test_a_variable_that_nothing_reads_is_told_of_once_with_the_nearest(name, hint, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(configuration, "_once", cache(lambda: LogOnce(configuration.__name__)))
    (tmp_path / "none.json").write_text("{}")
    environ = {name: "1", "MEMPRESSURE_CONFIG": str(tmp_path / "none.json"), "MEMPRESSURE_APP": "a", "LAZY_OTHER": "1"}
    for _ in range(3):
        load_configuration(environ=environ)
    assert caplog.messages == [f"environment variable {name} is not one of mempressure's: {hint}"]


def test_a_package_host_leaves_the_telling_to_its_worker(caplog, monkeypatch):
    monkeypatch.setattr(configuration, "_once", cache(lambda: LogOnce(configuration.__name__)))
    monkeypatch.setattr(identity, "packages", lambda: ("pandas",))
    load_configuration(environ={"MEMPRESSURE_BUGDET": "1"})
    assert caplog.messages == []
