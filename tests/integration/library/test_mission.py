"""The mission document, to the letter: its Python runs as printed, its JSON is answered, its settings are taken."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mempressure import LazyLoader
from mempressure.config.configuration import SETTINGS, load_configuration
from mempressure.config.thresholds import ALERT_LEVELS, PRESSURE_LEVELS, Thresholds, pressure_level
from mempressure.control.monitor import MemoryMonitor
from mempressure.decide.eligibility import choose_strategy
from mempressure.decide.suggestions import PRIORITIES, SUGGESTION_TYPES
from tests.support.servers.actuator_process import Actuator

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs/mission.md").read_text()
GIB = 1 << 30


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the headings above it."""

    language: str
    text: str
    section: str

    @property
    def name(self):
        return self.section.lower().replace(" ", "-")


def blocks_of(language):
    found, section, lines, opened = [], "", [], ""
    for line in DOCUMENT.splitlines():
        if line.startswith("```"):
            if opened:
                found.append(Block(opened, "\n".join(lines) + "\n", section))
            opened, lines = "" if opened else line[3:], []
        elif opened:
            lines.append(line)
        elif line.startswith("#"):
            section = line.lstrip("# ")
    return [block for block in found if block.language == language]


def block(language, section):
    (found,) = (each for each in blocks_of(language) if each.section == section)
    return found


def example(text):
    """Return the content of an example in JSON, which writes what it leaves out as [...]."""
    return json.loads(text.replace("[...]", "[]"))


PYTHON = blocks_of("python")
USED = {"quiet": 0.3, "warning": 0.75, "emergency": 0.96}


def test_the_document_is_read_whole():
    assert len(PYTHON) == DOCUMENT.count("```python") == 10
    assert len(blocks_of("json")) == DOCUMENT.count("```json") == 8
    assert len(blocks_of("bash")) == DOCUMENT.count("```bash") == 1
    assert DOCUMENT.count("```") == 2 * (10 + 8 + 1)


# What the blocks leave behind


def number_in(low, high):
    return lambda value: type(value) in {int, float} and low <= value <= high


def is_a(kind, *values):
    return lambda value: type(value) is kind and (not values or value in values)


BYTES = number_in(0, 1 << 60)
TIME = number_in(1.6e9, 1e11)
TEXT = lambda value: type(value) is str and len(value) > 3  # noqa: E731 -- one of a row of such

SYSTEM_MEMORY = {
    "total": is_a(int),
    "available": is_a(int),
    "used": is_a(int),
    "percent": number_in(0, 100),
    "swap_total": is_a(int),
    "swap_used": is_a(int),
    "swap_percent": number_in(0, 100),
    "swap_available": is_a(int),
    "memory_pressure_level": is_a(str, *PRESSURE_LEVELS),
    "timestamp": TIME,
}
ALERT = {
    "level": is_a(str, *ALERT_LEVELS.values()),
    "message": TEXT,
    "usage_percent": number_in(0, 1),
    "timestamp": TIME,
    "recommendation": TEXT,
    "action_required": is_a(bool),
    "scope": is_a(str, "host"),
    "app": is_a(str, ""),
}
SUGGESTION = {
    "type": is_a(str, *SUGGESTION_TYPES),
    "severity": is_a(str, *PRIORITIES),
    "message": TEXT,
    "recommendation": TEXT,
    "value": BYTES,
    "priority": is_a(int, *PRIORITIES.values()),
    "scope": is_a(str, "host"),
    "app": is_a(str, ""),
}
SUMMARY = {
    "system_memory": lambda value: fits_system_memory(value),  # noqa: PLW0108 -- defined below
    "current_alerts": lambda value: all(fits_alert(each) for each in value),
    "optimization_suggestions": lambda value: all(fits_suggestion(each) for each in value),
    "alert_history": lambda value: all(fits_alert(each) for each in value),
    "memory_trend": is_a(str, "increasing", "stable", "decreasing"),
    "last_check": TIME,
    "alerts_enabled": is_a(bool),
    "suggestions_enabled": is_a(bool),
    "scopes": lambda value: [scope["scope"] for scope in value] == ["host"],
}
COLLECTED = {
    "objects_collected": is_a(int),
    "memory_freed": BYTES,
    "memory_measured": is_a(bool, True),
    "duration_seconds": number_in(0, 60),
}


def fits(checks, value):
    assert list(value) == list(checks)
    for key, check in checks.items():
        assert check(value[key]), (key, value[key])
    return True


def fits_system_memory(value):
    fits(SYSTEM_MEMORY, value)
    assert 0 < value["available"] <= value["total"]
    assert value["used"] == value["total"] - value["available"]
    assert value["percent"] == pytest.approx(100 * value["used"] / value["total"])
    assert value["swap_total"] == value["swap_used"] + value["swap_available"]
    assert value["memory_pressure_level"] == pressure_level(value["used"] / value["total"])
    return True


def fits_alert(value):
    fits(ALERT, value)
    assert value["action_required"] == (value["level"] in {"high", "emergency"})
    assert f"{100 * value['usage_percent']:.1f}% memory usage" in value["message"]
    return True


def fits_suggestion(value):
    fits(SUGGESTION, value)
    assert value["priority"] == PRIORITIES[value["severity"]]
    return True


def each(check):
    return lambda values: type(values) is list and all(check(value) for value in values)


LEFT_BEHIND = {
    "system_info": fits_system_memory,
    "alert": fits_alert,
    "alerts": each(fits_alert),
    "suggestion": fits_suggestion,
    "suggestions": each(fits_suggestion),
    "critical_suggestions": each(fits_suggestion),
    "summary": lambda value: fits(SUMMARY, value),
    "pressure_level": is_a(str, *PRESSURE_LEVELS),
    "gc_stats": lambda value: fits(COLLECTED, value),
}
SENT = {"thresholds", "custom_thresholds"}


@pytest.fixture
def environ(tmp_path, monkeypatch):
    """Directories of the test's own."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setenv("MEMPRESSURE_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("MEMPRESSURE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MEMPRESSURE_ACTUATOR", "127.0.0.1:1")  # nobody, whatever runs on this machine
    return monkeypatch


def run(*command, **options):
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    # An application that sets up no logging has its warnings on stderr: the alerts, and nothing else.
    assert all(line.startswith("memory pressure: level=") for line in done.stderr.splitlines()), done.stderr
    return done.stdout


def left_by(block, tmp_path, *proc):
    """Return what `block` left behind in a fresh process, see `mission_block`."""
    path = tmp_path / "block.py"
    path.write_text(block.text)
    return json.loads(run("-m", "tests.support.programs.mission_block", path, *proc))


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.name)
def test_a_block_runs_as_printed(block, environ):
    run("-", input=block.text)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.name)
@pytest.mark.parametrize("used", [None, *USED], ids=["this machine", *USED])
def test_what_a_block_leaves_behind(block, used, environ, tmp_path, proc):
    arguments = ()
    if used:
        total = 8 * GIB >> 10
        proc.meminfo(MemTotal=total, MemAvailable=round(total * (1 - USED[used])), SwapFree=0)
        arguments = (proc.path,)
    left = left_by(block, tmp_path, *arguments)
    assigned = {
        node.id
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    } - {"loader", "monitor", "s"}
    assert assigned <= LEFT_BEHIND.keys() | SENT
    for name in assigned & LEFT_BEHIND.keys() & left["variables"].keys():
        assert LEFT_BEHIND[name](left["variables"][name]), name
    for name in assigned & SENT:
        assert left["thresholds"] == left["variables"][name]
    if used == "emergency":
        assert left["not_reached"] == [], "every line runs, and with it every key is asked for"
        assert assigned <= left["variables"].keys()
        assert bool(left["output"]) == ("print(" in block.text)
        if "enable_memory_pressure_alerts(False)" in block.text:
            assert left["alerts_after"] == []
        elif left["thresholds"]:
            assert [alert["level"] for alert in left["alerts_after"]] == ["emergency"]


def test_the_ten_values_of_the_system_memory():
    shown = ast.literal_eval(block("python", "System Memory Information").text)
    real = MemoryMonitor().get_system_memory_info()
    assert {key: type(value) for key, value in real.items()} == {key: type(value) for key, value in shown.items()}
    assert len(real) == 10


def test_as_many_packages_a_cycle_as_it_says():
    text = block("python", "Adaptive Unloading").text
    said = dict(re.findall(r"# Under (\w+) pressure: max ([\d-]+) packages per cycle", text))

    def most(usage, *, increasing=False):
        return str(choose_strategy(usage, Thresholds(), increasing=increasing).most_packages)

    assert said == {"normal": most(0.82), "high": f"{most(0.86)}-{most(0.86, increasing=True)}", "critical": most(0.95)}


def test_every_type_of_suggestion_it_names():
    listed = DOCUMENT[DOCUMENT.index("### Suggestion Types") : DOCUMENT.index("### Suggestion Priorities")]
    added = {"package_imported_by_results"}
    assert sorted(re.findall(r"^- \*\*(\w+)\*\*", listed, re.MULTILINE)) == sorted({*SUGGESTION_TYPES} - added)
    priorities = re.findall(r"^(\d)\. \*\*(Critical|High|Medium|Low)\*\*", DOCUMENT, re.MULTILINE)
    assert {name.lower(): int(place) for place, name in priorities} == PRIORITIES


def test_every_method_it_calls_says_what_it_returns():
    called = set(re.findall(r"\b(?:loader|monitor)\.(\w+)\(", DOCUMENT))
    assert len(called) == 7
    for name in called:
        owner = MemoryMonitor if name in {"get_system_memory_info", "enable_memory_pressure_alerts"} else None
        method = getattr(owner or LazyLoader, name)
        assert "return" in method.__annotations__, name


# The API


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as the document shows it."""

    title: str
    method: str
    path: str
    request: dict | None
    response: dict


def endpoints():
    api = DOCUMENT[DOCUMENT.index("## API Endpoints") : DOCUMENT.index("## Configuration\n")]
    found = []
    for section in api.split("\n### ")[1:]:
        title = section.partition("\n")[0]
        method, path = re.search(r"^\*\*(GET|POST)\*\* `(\S+)`$", section, re.MULTILINE).groups()
        shown = dict(
            re.findall(r"^\*\*(Request|Response):\*\*\n\n```json\n(.*?)```", section, re.MULTILINE | re.DOTALL)
        )
        request = example(shown["Request"]) if "Request" in shown else None
        found.append(Endpoint(title, method, path, request, example(shown["Response"])))
    return found


ENDPOINTS = endpoints()


@pytest.fixture(scope="module")
def shown_host(tmp_path_factory):
    """An actuator on the host of the document's examples, 75 % of 8 GiB and half the swap used."""
    folder = tmp_path_factory.mktemp("mission")
    (folder / "proc").mkdir()
    (folder / "proc/meminfo").write_text(
        "MemTotal: 8388608 kB\nMemFree: 1048576 kB\nMemAvailable: 2097152 kB\n"
        "SwapTotal: 2097152 kB\nSwapFree: 1048576 kB\n"
    )
    (folder / "runtime").mkdir(mode=0o755)
    actuator = Actuator(folder / "runtime", folder / "state", folder / "log")
    actuator.start(f"--path.procfs={folder / 'proc'}")
    # The threshold at which the document's 75 % is the document's alert.
    thresholds = {"warning": 0.6, "unload_packages": 0.75, "aggressive_unload": 0.85, "emergency": 0.9}
    assert actuator.request("POST", "/api/packages/memory/pressure-thresholds", thresholds)[0] == 200
    yield actuator
    actuator.close()


def assert_holds(real, shown, where="answer"):
    """Check that every field that is shown is there, with a value of the type that is shown."""
    assert type(real) is type(shown), where
    if isinstance(shown, dict):
        for key, value in shown.items():
            assert key in real, f"{where}.{key}"
            assert_holds(real[key], value, f"{where}.{key}")
    elif isinstance(shown, list) and shown:
        assert real, f"{where} is empty: nothing is compared"
        for value in real:
            assert_holds(value, shown[0], f"{where}[]")


def test_the_six_endpoints():
    assert [(endpoint.method, endpoint.path) for endpoint in ENDPOINTS] == [
        ("GET", "/api/packages/memory/pressure-summary"),
        ("GET", "/api/packages/memory/pressure-alerts"),
        ("GET", "/api/packages/memory/system-info"),
        ("POST", "/api/packages/memory/pressure-thresholds"),
        ("POST", "/api/packages/memory/pressure-alerts/{enabled}"),
        ("POST", "/api/packages/memory/optimization-suggestions/{enabled}"),
    ]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.title)
def test_an_endpoint_answers_as_shown(shown_host, endpoint):
    status, headers, answer = shown_host.request(
        endpoint.method, endpoint.path.replace("{enabled}", "true"), endpoint.request
    )
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert set(answer) == {"status", "data"}
    assert_holds(answer, endpoint.response)
    if endpoint.method == "POST":  # nothing depends on the machine, so all but the time is the same
        assert answer["data"] | {"update_time": 0} == endpoint.response["data"] | {"update_time": 0}


def test_the_values_shown_are_those_of_the_host_shown(shown_host):
    """Where the document's examples agree with its tables, the answers are the examples."""
    shown = {endpoint.title: endpoint.response["data"] for endpoint in ENDPOINTS}
    thresholds = {"warning": 0.6, "unload_packages": 0.75, "aggressive_unload": 0.85, "emergency": 0.9}
    assert shown_host.request("POST", "/api/packages/memory/pressure-thresholds", thresholds)[0] == 200
    times = {"timestamp": 0.0}
    system = shown_host.request("GET", "/api/packages/memory/system-info")[2]["data"]
    table = {"memory_pressure_level": "high"}  # docs/alerts-and-suggestions.md: the table decides, not the example
    assert system | times == shown["System Memory Information"] | times | table
    summary = shown_host.request("GET", "/api/packages/memory/pressure-summary")[2]["data"]
    (alert,) = summary["current_alerts"]
    assert alert | times == shown["Memory Pressure Summary"]["current_alerts"][0] | times | {"scope": "host", "app": ""}
    (suggestion,) = (each for each in summary["optimization_suggestions"] if "package" in each["type"])
    example = shown["Memory Pressure Summary"]["optimization_suggestions"][0]
    assert suggestion == example | {"scope": "host", "app": ""}
    counts = shown_host.request("GET", "/api/packages/memory/pressure-alerts")[2]["data"]
    numbers = {key: value for key, value in shown["Memory Pressure Alerts"].items() if key.endswith("_alerts")}
    assert {key: counts[key] for key in numbers} == numbers


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if "{enabled}" in e.path], ids=lambda e: e.title)
def test_what_can_be_disabled(shown_host, endpoint):
    answer = shown_host.request("POST", endpoint.path.replace("{enabled}", "false"))[2]["data"]
    wanted = endpoint.response["data"] | {"enabled": False, "update_time": 0}
    assert answer | {"update_time": 0} == wanted | {"message": wanted["message"].replace("enabled", "disabled")}
    assert shown_host.request("POST", endpoint.path.replace("{enabled}", "true"))[0] == 200


# The settings


VARIABLES = dict(re.findall(r"^([A-Z_]+)=(.*)$", block("bash", "Environment Variables").text, re.MULTILINE))


def test_the_four_variables_and_their_keys(tmp_path):
    values = example(block("json", "Configuration File").text)
    assert {name.lower(): yaml.safe_load(text) for name, text in VARIABLES.items()} == values
    assert len(values) == 4
    path = tmp_path / "mempressure.json"
    path.write_text(block("json", "Configuration File").text)
    for environ, origin in ((VARIABLES, "environment variable"), ({"MEMPRESSURE_CONFIG": str(path)}, str(path))):
        configuration = load_configuration(environ=environ)
        settings = [setting for setting in SETTINGS if setting.key in values]
        assert len(settings) == len(values)
        for setting in settings:
            assert getattr(configuration, setting.name) == values[setting.key]
            assert origin in configuration.origin(setting.name)


@pytest.mark.parametrize("way", ["variables", "file"])
def test_an_application_takes_the_settings(way, environ, tmp_path):
    changed = {name: {"0.8": "0.7", "60": "77", "true": "false"}[text] for name, text in VARIABLES.items()}
    if way == "variables":
        for name, text in changed.items():
            environ.setenv(name, text)
    else:
        path = tmp_path / "mempressure.yml"
        path.write_text("".join(f"{name.lower()}: {text}\n" for name, text in changed.items()))
        environ.setenv("MEMPRESSURE_CONFIG", str(path))
    code = """
from app.utils.lazy_loader import get_lazy_loader
loader = get_lazy_loader()
loader.manage("json")
print(loader.monitor.thresholds.unload_packages, loader.packages()[0].timeout)
"""
    assert run("-", input=code).split() == ["0.7", "77.0"]
