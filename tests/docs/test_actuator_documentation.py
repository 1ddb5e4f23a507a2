"""Fails when an endpoint, a flag or a metric of the actuator is not in its documentation, or no longer exists."""

import re
from pathlib import Path

import pytest

from mempressure.act.executor import Outcome
from mempressure.decide.plan import Action, Target
from mempressure.state.node import AppReading
from mempressure.state.records import PackageState
from mempressure_actuator.api.access import Access
from mempressure_actuator.api.endpoint import ERRORS
from mempressure_actuator.api.openapi import describe
from mempressure_actuator.api.routes import ENDPOINTS
from mempressure_actuator.api.token import load_token
from mempressure_actuator.application import create_app
from mempressure_actuator.command import parser
from mempressure_actuator.inbox import webhook
from mempressure_actuator.inbox.notification import RESULTS
from mempressure_actuator.metrics import MAX_PACKAGE_SERIES

DOCS = Path(__file__).parents[2] / "docs"
MIB = 1 << 20


@pytest.fixture
def text():
    return (DOCS / "actuator.md").read_text()


def test_every_endpoint_is_documented_and_in_openapi_and_no_other(actuator, state_dir):
    app = create_app(actuator, access=Access(load_token(state_dir / "token"), host="127.0.0.1"))
    description = app.test_client().get("/api/openapi.json").get_json()
    served = {f"{method.upper()} {path}" for path, operations in description["paths"].items() for method in operations}
    api = (DOCS / "api.md").read_text()
    described = set(re.findall(r"^### (\w+ /\S*)$", api, re.MULTILINE)) | set(
        re.findall(r"^\| `(GET /\S*)`", api, re.MULTILINE)
    )
    assert described == served


def test_every_error_is_documented_with_its_status_and_no_other():
    rows = re.findall(r"^\| (\d{3}) \| (`\w+`(?:, `\w+`)*) \|", (DOCS / "api.md").read_text(), re.MULTILINE)
    documented = {code: int(status) for status, codes in rows for code in re.findall(r"\w+", codes)}
    assert documented == {code: status for code, (status, _) in ERRORS.items()}


def test_every_field_of_an_answer_is_documented():
    api = (DOCS / "api.md").read_text() + (DOCS / "alerts-and-suggestions.md").read_text()
    described = set(re.findall(r"`(\w+)`", api)) | set(re.findall(r'"(\w+)":', api))
    schemas = describe((*ENDPOINTS, webhook.ENDPOINT))["components"]["schemas"]
    fields = {name for title, schema in schemas.items() if title != "OpenAPI" for name in schema["properties"]}
    # Alertmanager's own fields are in its documentation.
    theirs = {name for title in ("Notification", "Alert") for name in schemas[title]["properties"]}
    assert fields - theirs - described == set()


def test_every_flag_is_documented_and_no_other(text):
    flags = {option for action in parser()._actions for option in action.option_strings if option.startswith("--")}
    assert set(re.findall(r"^\| `(--[\w.-]+)` \|", text, re.MULTILINE)) == flags


def test_defaults_of_flags_are_as_documented(text):
    defaults = dict(re.findall(r"^\| `--([\w.-]+)` \| `([^`]+)` \|", text, re.MULTILINE))
    flags = parser().parse_args([])
    assert defaults["web.listen-address"] == flags.address
    assert defaults["path.procfs"] == flags.proc
    assert (defaults["log.level"], defaults["log.format"]) == (flags.log_level, flags.log_format)


def families(actuator):
    return {
        (f"{family.name}_total" if family.type == "counter" else family.name)
        + ("_info" if family.type == "info" else ""): family
        for family in actuator.metrics.registry.collect()
        if family.name.startswith("mempressure_")
    }


def test_every_metric_is_documented_with_its_labels_and_no_other(actuator, text, make_worker):
    observe_everything(actuator, make_worker)
    documented = {
        name: set(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(r"^\| `(mempressure_\w+)` \|([^|]*)\|", text, re.MULTILINE)
    }
    exposed = {
        name: {label for sample in family.samples for label in sample.labels if label != "le"}
        for name, family in families(actuator).items()
    }
    assert documented == exposed


def test_every_result_of_an_alert_is_documented(text):
    (row,) = re.findall(r"^\| `mempressure_actuator_alerts_total`.*$", text, re.MULTILINE)
    assert all(f"`{result}`" in row for result in RESULTS)


def observe_everything(actuator, make_worker):
    actuator.metrics.observe_action(recycling(make_worker()), Outcome(10 * MIB, 1, (), (), 0.1))
    actuator.metrics.cycles.labels("api", "done").inc()
    actuator.metrics.observe_custom("page", "done", 0.1)


def recycling(worker, *names):
    packages = [
        PackageState(name=name, mechanism="recycle", source="import", timeout=60.0, loaded=1.0, memory_bytes=size * MIB)
        for name, size in zip(names or ("numpy", "pandas"), (1.0, 3.0), strict=False)
    ]
    worker.packages = packages
    app = AppReading("shop", 0, Path("/none"), (worker,), None)
    return Action("recycle", app, tuple(p.name for p in packages), (Target(worker, {}),), 0, "")


def series(actuator, name):
    return {
        tuple(sample.labels.values()): sample.value
        for family in actuator.metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_recycling_is_counted_in_the_exporters_families(actuator, make_worker):
    actuator.metrics.observe_action(recycling(make_worker()), Outcome(8 * MIB, 1, (), (), 0.1))
    assert series(actuator, "mempressure_package_unloads_total") == {
        ("shop", "numpy", "recycle"): 1.0,
        ("shop", "pandas", "recycle"): 1.0,
    }
    assert series(actuator, "mempressure_package_reclaimed_bytes_total") == {
        ("shop", "numpy", "recycle"): 2.0 * MIB,
        ("shop", "pandas", "recycle"): 6.0 * MIB,
    }


def test_a_recycling_that_did_not_happen_is_not_counted(actuator, make_worker):
    actuator.metrics.observe_action(recycling(make_worker()), Outcome(0, 0, ("is in use",), (), 0.1))
    assert series(actuator, "mempressure_package_unloads_total") == {}


def test_series_of_recycled_packages_are_bounded(actuator, make_worker):
    for number in range(MAX_PACKAGE_SERIES + 3):
        actuator.metrics.observe_action(recycling(make_worker(), f"p{number}"), Outcome(0, 1, (), (), 0.1))
    assert len(series(actuator, "mempressure_package_unloads_total")) == MAX_PACKAGE_SERIES
    assert series(actuator, "mempressure_actuator_series_dropped_total") == {(): 3.0}
