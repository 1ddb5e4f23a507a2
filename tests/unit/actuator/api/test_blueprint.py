import json
import re

import pytest
from flask import Flask

from mempressure.state.records import PackageState
from mempressure_actuator.api import blueprint as api
from mempressure_actuator.api import operations, routes
from mempressure_actuator.api.access import Access
from mempressure_actuator.api.token import load_token
from mempressure_actuator.application import PAGES
from mempressure_actuator.inbox import webhook

MIB = 1 << 20
BASE = "/api/packages"
THRESHOLDS = {"warning": 0.5, "unload_packages": 0.7, "aggressive_unload": 0.8, "emergency": 0.97}


@pytest.fixture
def shop(publish_worker, proc):
    proc.process(101, start_ticks=1000)
    proc.process(102, start_ticks=1000)
    options = {"mechanism": "stop", "source": "process", "timeout": 60.0}
    for pid, used in ((101, 1e9), (102, 1.5e9)):
        grows = {"cumulative_bytes": 12.0 * MIB, "freed_bytes": 11.0 * MIB, "growth": 512.0, "imports": ["numpy"]}
        packages = [
            PackageState(
                name="pandas",
                verdict="stop",
                loaded=1.0,
                memory_bytes=10.0 * MIB,
                last_used=used,
                **grows,
                **options,
            ),
            PackageState(name="sympy", loaded=float(pid == 101), memory_bytes=5.0 * MIB, last_used=-1.0, **options),
        ]
        publish_worker(
            pid=pid,
            packages=packages,
            budget_bytes=100 * MIB,
            proportional_bytes=43.0 * MIB,
            unsupported={"trim": "no malloc_trim"} if pid == 101 else {},
            callback_failures=pid - 100.0,
        )


def error(response):
    content = response.get_json()
    assert set(content) == {"status", "error"}
    assert content["status"] == "error"
    assert set(content["error"]) == {"code", "message"}
    return response.status_code, content["error"]["code"], content["error"]["message"]


def data(response):
    content = response.get_json()
    assert response.status_code == 200, content
    assert set(content) == {"status", "data"}
    assert content["status"] == "success"
    return content["data"]


def test_the_summary_has_the_documents_fields(client, proc):
    proc.meminfo(MemAvailable=2 << 20)
    summary = data(client.get(BASE + "/memory/pressure-summary"))
    assert set(summary) >= {
        "system_memory",
        "current_alerts",
        "optimization_suggestions",
        "alert_history",
        "memory_trend",
        "last_check",
        "alerts_enabled",
        "suggestions_enabled",
    }
    assert set(summary["system_memory"]) >= {
        "total",
        "available",
        "used",
        "percent",
        "swap_total",
        "swap_used",
        "swap_percent",
        "memory_pressure_level",
        "timestamp",
    }
    assert summary["system_memory"]["percent"] == 75.0
    assert summary["system_memory"]["memory_pressure_level"] == "high"
    assert set(summary["current_alerts"][0]) >= {
        "level",
        "message",
        "usage_percent",
        "timestamp",
        "recommendation",
        "action_required",
    }
    assert summary["current_alerts"][0]["usage_percent"] == 0.75
    assert set(summary["optimization_suggestions"][0]) >= {
        "type",
        "severity",
        "message",
        "recommendation",
        "value",
        "priority",
    }
    assert summary["alert_history"][0] == summary["current_alerts"][0]
    assert (summary["memory_trend"], summary["alerts_enabled"], summary["suggestions_enabled"]) == (
        "stable",
        True,
        True,
    )


def test_alerts_are_counted_by_level(client, proc, shop):
    proc.meminfo(MemAvailable=400 << 10)
    alerts = data(client.get(BASE + "/memory/pressure-alerts"))
    counts = {key: alerts[key] for key in alerts if key.endswith("_alerts")}
    assert counts == {
        "total_alerts": 2,
        "critical_alerts": 1,
        "high_alerts": 1,
        "medium_alerts": 0,
        "warning_alerts": 0,
    }
    assert [(alert["level"], alert["scope"], alert["app"]) for alert in alerts["alerts"]] == [
        ("emergency", "host", ""),
        ("high", "app", "shop"),
    ]
    assert alerts["check_time"] > 0


def test_system_info_has_exactly_the_documents_fields(client):
    assert list(data(client.get(BASE + "/memory/system-info"))) == [
        "total",
        "available",
        "used",
        "percent",
        "swap_total",
        "swap_used",
        "swap_percent",
        "swap_available",
        "memory_pressure_level",
        "timestamp",
    ]


def test_thresholds_hold_at_once_and_for_the_exporter(client, auth, state_dir):
    answer = data(client.post(BASE + "/memory/pressure-thresholds", json=THRESHOLDS, headers=auth))
    assert set(answer) == {"message", "thresholds", "update_time"}
    assert answer["message"] == "Memory pressure thresholds updated"
    assert answer["thresholds"] == THRESHOLDS
    assert json.loads((state_dir / "settings.json").read_text())["thresholds"] == THRESHOLDS
    alerts = data(client.get(BASE + "/memory/pressure-alerts"))
    assert [alert["level"] for alert in alerts["alerts"]] == ["warning"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"warning": None}, "warning"),
        ({"warning": "0.5"}, "warning"),
        ({"warning": True}, "warning"),
        ({"warning": -0.1}, "warning"),
        ({"warning": 0.05}, "warning"),
        ({"emergency": 1.01}, "emergency"),
        ({"emergency": 10**400}, ""),
        ({"emergency": 0.8}, "emergency"),
        ({"unload_packages": 0.4}, "unload_packages"),
        ({"surprise": 0.5}, "surprise"),
    ],
)
def test_thresholds_that_cannot_be_are_refused_and_change_nothing(client, auth, state_dir, change, named):
    data(client.post(BASE + "/memory/pressure-thresholds", json=THRESHOLDS, headers=auth))
    before = (state_dir / "settings.json").read_bytes()
    path = BASE + "/memory/pressure-thresholds"
    status, _, message = error(client.post(path, json=THRESHOLDS | change, headers=auth))
    assert status == 400
    assert named in message
    assert (state_dir / "settings.json").read_bytes() == before


@pytest.mark.parametrize("missing", sorted(THRESHOLDS))
def test_a_missing_threshold_is_named(client, auth, missing):
    values = {name: value for name, value in THRESHOLDS.items() if name != missing}
    status, _, message = error(client.post(BASE + "/memory/pressure-thresholds", json=values, headers=auth))
    assert (status, message.startswith(f"{missing} is missing; send, for example, {{")) == (400, True)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"1", b'{"warning": NaN}', b"\xff"])
def test_a_body_that_is_no_object_is_refused(client, auth, body):
    path = BASE + "/memory/pressure-thresholds"
    assert error(client.post(path, data=body, content_type="application/json", headers=auth))[0] == 400


def test_another_content_type_is_refused(client, auth):
    answer = client.post(BASE + "/memory/pressure-thresholds", data=json.dumps(THRESHOLDS), headers=auth)
    assert error(answer)[:2] == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("path", "key", "what"),
    [
        ("pressure-alerts", "alerts_enabled", "Memory pressure alerts"),
        ("optimization-suggestions", "suggestions_enabled", "Memory optimization suggestions"),
    ],
)
def test_what_can_be_turned_off_and_on(client, auth, path, key, what):
    for word, on in (("false", False), ("true", True)):
        answer = data(client.post(f"{BASE}/memory/{path}/{word}", headers=auth))
        assert set(answer) == {"message", "enabled", "update_time"}
        assert (answer["message"], answer["enabled"]) == (f"{what} {'enabled' if on else 'disabled'}", on)
        assert data(client.get(BASE + "/memory/pressure-summary"))[key] is on
    for word in ("True", "1", "on", "maybe"):
        assert error(client.post(f"{BASE}/memory/{path}/{word}", headers=auth))[0] == 400
    assert data(client.get(BASE + "/memory/pressure-summary"))[key] is True


def test_packages_of_every_app(client, shop):
    content = data(client.get(BASE))
    assert content["node"] == "n1"
    (app,) = content["apps"]
    assert (app["app"], app["used"], app["limit"]) == ("shop", 86 * MIB, 100 * MIB)
    assert [worker["pid"] for worker in app["workers"]] == [101, 102]
    pandas, sympy = app["packages"]
    assert (pandas["package"], pandas["memory_bytes"], pandas["loaded_workers"]) == ("pandas", 20 * MIB, 2)
    assert pandas["idle_seconds"] == pytest.approx(content["check_time"] - 1.5e9)
    assert (pandas["mechanism"], pandas["keep_loaded"]) == ("stop", False)
    assert (pandas["verdict"], sympy["verdict"]) == ("stop", None)
    assert (sympy["loaded_workers"], sympy["workers"], sympy["idle_seconds"]) == (1, 2, None)
    assert (pandas["cumulative_bytes"], pandas["freed_bytes"], pandas["imports"]) == (24 * MIB, 22 * MIB, ["numpy"])
    assert pandas["growth_bytes_per_second"] == 1024
    assert (sympy["cumulative_bytes"], sympy["freed_bytes"], sympy["growth_bytes_per_second"]) == (None, None, None)
    assert [worker["unsupported"] for worker in app["workers"]] == [{"trim": "no malloc_trim"}, {}]
    assert [worker["callback_failures"] for worker in app["workers"]] == [1, 2]


def test_the_roles_of_an_app_and_the_advice_on_it(client, publish_worker, proc):
    sizes = {"proportional_bytes": 100.0 * MIB, "private_bytes": 90.0 * MIB, "baseline_bytes": 70.0 * MIB}
    worker = {"supervisor": "gunicorn", "supervisor_pid": 9, "role": "worker", "supervisor_bytes": 20.0 * MIB} | sizes
    for pid in (101, 102):
        proc.process(pid)
        publish_worker(pid=pid, packages=["pandas"], last_work=1.0, **worker)
    (app,) = data(client.get(BASE))["apps"]
    master, workers = app["roles"]
    assert (master["role"], master["server"], master["processes"]) == ("master", "gunicorn", 1)
    assert (master["fresh_bytes"], master["idle_seconds"]) == (None, None)
    assert (workers["title"], workers["processes"]) == ("gunicorn worker", 2)
    assert (workers["proportional_bytes"], workers["private_bytes"]) == (200 * MIB, 180 * MIB)
    split = [workers[f"{part}_bytes"] for part in ("shared", "fresh", "late", "grown", "unsplit")]
    assert split == [20 * MIB, 140 * MIB, None, 40 * MIB, 0]
    assert workers["idle_seconds"] > 1e9
    assert app["packages"][0]["worker_idle_seconds"] == workers["idle_seconds"]
    (share,) = app["advice"]
    assert (share["kind"], share["code"]) == ("share", "mempressure run --manage --share -- COMMAND")
    assert (share["rest_bytes"], share["peak_bytes"]) == (42 * MIB, 28 * MIB)


def test_a_preference_for_one_app_and_for_all(client, auth, shop):
    answer = data(client.put(BASE + "/pandas/preference", json={"keep_loaded": True, "app": "shop"}, headers=auth))
    assert (answer["package"], answer["app"], answer["keep_loaded"]) == ("pandas", "shop", True)
    data(client.put(BASE + "/sympy/preference", json={"keep_loaded": True}, headers=auth))
    (app,) = data(client.get(BASE))["apps"]
    assert [package["keep_loaded"] for package in app["packages"]] == [True, True]


@pytest.mark.parametrize(
    "body",
    [{}, {"keep_loaded": 1}, {"keep_loaded": "true"}, {"keep_loaded": True, "app": 1}, {"keep_loaded": True, "x": 1}],
)
def test_a_preference_that_cannot_be_is_refused(client, auth, body):
    assert error(client.put(BASE + "/pandas/preference", json=body, headers=auth))[0] == 400


def test_preferences_are_bounded(client, auth, monkeypatch):
    monkeypatch.setattr(operations, "MAX_PREFERENCES", 2)
    for name in ("a", "b", "a"):
        data(client.put(f"{BASE}/{name}/preference", json={"keep_loaded": True}, headers=auth))
    assert error(client.put(BASE + "/c/preference", json={"keep_loaded": True}, headers=auth))[0] == 409
    assert error(client.put(f"{BASE}/{'x' * 201}/preference", json={"keep_loaded": True}, headers=auth))[0] == 400


def test_an_unload_of_an_unknown_package_names_the_known_ones(client, auth, shop):
    status, code, message = error(client.post(BASE + "/numpy/unload", headers=auth))
    assert (status, code) == (404, "unknown_package")
    assert "known are pandas, sympy" in message


@pytest.mark.parametrize("body", [{"force": "yes"}, {"app": 1}, {"surprise": 1}, [], "x"])
def test_an_unload_that_cannot_be_is_refused(client, auth, shop, body):
    assert error(client.post(BASE + "/pandas/unload", json=body, headers=auth))[0] == 400


def test_an_unload_answers_one_result_an_app(client, auth, shop, proc):
    answer = data(client.post(BASE + "/pandas/unload", json={"force": True, "app": "shop"}, headers=auth))
    (result,) = answer["results"]
    assert set(result) == {
        "app",
        "package",
        "mechanism",
        "reclaimed_bytes",
        "workers",
        "skipped_reason",
        "skipped",
        "errors",
    }
    assert len(result["errors"]) == 2  # these workers have no agent


def test_garbage_collection_reports_every_worker(client, auth, shop):
    answer = data(client.post(BASE + "/memory/gc", headers=auth))
    assert answer["memory_freed"] == 0
    assert [worker["pid"] for worker in answer["workers"]] == [101, 102]


def test_settings_tell_what_holds_and_where_it_came_from(client, auth):
    def settings():
        answer = data(client.get(BASE + "/memory/settings"))
        return answer, {row["name"]: (row["value"], row["origin"]) for row in answer["settings"]}

    answer, rows = settings()
    assert (answer["thresholds"]["warning"], answer["hysteresis"]) == (0.6, 0.05)
    assert rows["warning"] == ("0.6", "default")
    assert rows["MEMPRESSURE_NODE"] == ("n1", "environment variable MEMPRESSURE_NODE")
    data(client.post(BASE + "/memory/pressure-thresholds", json=THRESHOLDS, headers=auth))
    answer, rows = settings()
    assert answer["thresholds"] == THRESHOLDS
    assert rows["warning"] == ("0.5", "set through the API")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1.5", "٣", "99999999999999999999"])
def test_a_limit_that_cannot_be_is_named(client, limit):
    status, _, message = error(client.get(BASE + "/memory/history", query_string={"limit": limit}))
    assert status == 400
    assert "send 1 to 1000" in message


@pytest.mark.parametrize("limit", ["1", "1000"])
def test_history_takes_a_limit(client, auth, shop, limit):
    data(client.post(BASE + "/memory/gc", headers=auth))
    data(client.post(BASE + "/memory/gc", headers=auth))
    cycles = data(client.get(BASE + "/memory/history", query_string={"limit": limit}))["cycles"]
    assert len(cycles) == min(2, int(limit))
    assert [cycle["trigger"] for cycle in cycles] == ["api"] * len(cycles)


EVERY = (*routes.ENDPOINTS, webhook.ENDPOINT, *PAGES)
CHANGES = sorted((each.method, re.sub(r"{\w+}", "true", each.path)) for each in EVERY if each.method != "GET")
READS = sorted(each.path for each in EVERY if each.method == "GET")


def test_every_route_is_an_endpoint_of_the_table(client):
    served = {
        (method, str(rule))
        for rule in client.application.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.endpoint != "mempressure.unknown" and (not rule.endpoint.startswith("page.") or str(rule) == "/")
    }
    assert served == {(each.method, each.rule) for each in EVERY}


def test_whatever_changes_something_needs_the_token(client, auth):
    assert len(CHANGES) == 7
    for method, path in CHANGES:
        response = client.open(path, method=method)
        assert error(response)[:2] == (401, "unauthorized"), path
        assert response.headers["WWW-Authenticate"].startswith("Bearer"), path
        wrong = {"Authorization": auth["Authorization"][:-1] + "~"}
        assert client.open(path, method=method, headers=wrong).status_code == 401, path
        assert client.open(path, method=method, headers=auth).status_code != 401, path


def test_reads_need_no_token_on_loopback_and_one_beyond(client_of, actuator, auth):
    local, public = client_of("127.0.0.1"), client_of("0.0.0.0")  # noqa: S104 -- nothing listens
    assert len(READS) == 11
    for path in READS:
        assert local.get(path).status_code in (200, 503), path
        refused = public.get(path)
        # People sign in on the page; other requests come from programs.
        assert refused.status_code == 401 if path == "/" else error(refused)[:2] == (401, "unauthorized"), path
        assert public.get(path, headers=auth).status_code in (200, 503), path
    assert error(public.get("/nowhere"))[0] == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST.:10062", 200),
        ("127.0.0.1:10062", 200),
        ("127.9.9.9", 200),
        ("[::1]:10062", 200),
        ("evil.example", 421),
        ("evil.example:10062", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("10.0.0.1", 421),
        ("[::2]", 421),
        ("", 400),
    ],
)
def test_a_server_on_loopback_is_addressed_as_such(client, host, status):
    assert client.get("/metrics", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("host", ["", "0.0.0.0", "10.0.0.1", "box.example"])  # noqa: S104 -- nothing listens
def test_beyond_loopback_any_name_will_do(client_of, auth, host):
    assert client_of(host).get("/metrics", headers=auth | {"Host": "box.example"}).status_code == 200


@pytest.mark.parametrize("version", ["x", "1.x", "9" * 5000, "\xff", ""])
def test_whatever_version_of_the_metrics_is_asked_for_there_is_an_answer(client, version):
    response = client.get("/metrics", headers={"Accept": f"application/openmetrics-text;version={version}"})
    assert response.status_code == 200
    assert b"mempressure_actuator_autonomous" in response.data


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/nowhere", 404, "not_found"),
        ("GET", "/api/packages/", 404, "not_found"),
        ("GET", "/webhook/alertmanager", 405, "method_not_allowed"),
        ("DELETE", "/api/packages", 405, "method_not_allowed"),
        ("GET", "/api/packages/pandas/unload", 405, "method_not_allowed"),
        ("POST", "/metrics", 405, "method_not_allowed"),
    ],
)
def test_every_error_is_json(client, auth, method, path, status, code):
    response = client.open(path, method=method, headers=auth)
    assert error(response)[:2] == (status, code)
    assert ("Allow" in response.headers) is (status == 405)


def test_what_goes_wrong_inside_is_an_error_that_says_nothing_of_it(client, actuator, monkeypatch, caplog):
    monkeypatch.setattr(actuator, "evaluate", lambda: 1 / 0)
    status, code, message = error(client.get(BASE))
    assert (status, code) == (500, "internal_error")
    assert "division" not in message
    assert "ZeroDivisionError" in caplog.text


def test_settings_that_cannot_be_read_stop_nothing(client, auth, actuator, state_dir, caplog):
    actuator.settings.set_thresholds(
        {"warning": 0.5, "unload_packages": 0.7, "aggressive_unload": 0.8, "emergency": 0.9}
    )
    (state_dir / "settings.json").rename(state_dir / "aside")
    (state_dir / "settings.json").mkdir()
    for path in ("/", BASE, BASE + "/memory/system-info", BASE + "/memory/settings"):
        assert client.get(path).status_code == 200
    actuator.loop.turn()
    assert actuator.settings.rules().thresholds.unload_packages == 0.7
    assert caplog.text.count("settings not read, those read last stay in force") == 1
    url = BASE + "/memory/pressure-alerts/false"
    assert client.post(url, headers=auth).status_code == 503
    (state_dir / "settings.json").rmdir()
    assert actuator.settings.current().thresholds.unload_packages == 0.8


def test_a_host_that_cannot_be_measured_is_reported(client, proc):
    (proc.root / "meminfo").unlink()
    status, code, message = error(client.get(BASE + "/memory/system-info"))
    assert (status, code) == (503, "not_measured")
    assert "meminfo" in message


def test_settings_that_cannot_be_stored_are_reported(client, auth, actuator, monkeypatch):
    def full(_change):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(actuator.settings._file, "update", full)
    status, code, message = error(client.post(BASE + "/memory/pressure-thresholds", json=THRESHOLDS, headers=auth))
    assert (status, code) == (503, "not_stored")
    assert "No space left" in message


def test_what_comes_in_when_the_store_is_closed_already_is_to_be_sent_again(client, actuator, auth):
    actuator.stop()
    response = client.get("/api/packages/memory/history")
    assert (response.status_code, response.get_json()["error"]["code"]) == (503, "not_read")
    labels = {"alertname": "MemoryPressureHigh", "node": "n1", "scope": "host", "app": "", "level": "high"}
    alert = {"status": "firing", "labels": labels, "startsAt": "2026-01-01T00:00:00Z", "fingerprint": "f1"}
    body = {"version": "4", "status": "firing", "groupKey": "g", "alerts": [alert]}
    response = client.post("/webhook/alertmanager", json=body, headers=auth)
    assert (response.status_code, response.get_json()["error"]["code"]) == (503, "not_stored"), response.text
    assert actuator.leases() == []


def test_a_body_that_is_too_large_is_refused_by_every_change(client, auth):
    for method, path in CHANGES:
        response = client.open(
            path, method=method, headers=auth, data=b" " * (MIB + 1), content_type="application/json"
        )
        assert error(response)[:2] == (413, "too_large"), path


def test_the_api_can_be_mounted_in_an_existing_application(actuator, state_dir, token, auth, shop):
    app = Flask("existing")

    @app.get("/theirs")
    def theirs():
        return "theirs"

    app.register_blueprint(api.create_blueprint(actuator, access=Access(load_token(state_dir / "token"))))
    client = app.test_client()
    assert client.get("/theirs").text == "theirs"
    assert error(client.get(BASE))[0] == 401
    assert len(data(client.get(BASE, headers=auth))["apps"]) == 1
    assert error(client.post(BASE + "/none/unload", headers=auth))[0] == 404
    assert client.get("/nowhere").get_json(silent=True) is None  # the application's own answer


def test_ready_says_whether_the_loop_runs(client, actuator):
    assert client.get("/-/ready").status_code == 503
    actuator.start()
    assert client.get("/-/ready").status_code == 200
    assert client.get("/-/healthy").text == "healthy\n"
    actuator.stopping.set()
    assert client.get("/-/ready").status_code == 503


def test_the_landing_page_names_the_node_harmlessly(client, actuator):
    actuator.node = "<script>"
    page = client.get("/")
    assert page.mimetype == "text/html"
    assert "&lt;script&gt;" in page.text
    assert "<script>" not in page.text


def test_mounted_below_another_path_it_describes_that(actuator, state_dir, auth):
    app = Flask("existing")
    blueprint = api.create_blueprint(actuator, access=Access(load_token(state_dir / "token")))
    app.register_blueprint(blueprint, url_prefix="/ops")
    client = app.test_client()
    description = client.get("/ops/api/openapi.json", headers=auth).get_json()
    assert description["servers"] == [{"url": "/ops"}]
    assert error(client.get("/ops/api/packages/nowhere", headers=auth))[0] == 404
    for path, operations_of in description["paths"].items():
        if "get" in operations_of:
            assert client.get("/ops" + path, headers=auth).status_code == 200, path


def test_an_unexpected_error_is_json_in_another_application_too(actuator, state_dir, auth, monkeypatch):
    monkeypatch.setattr(actuator, "evaluate", lambda: 1 / 0)
    app = Flask("existing")
    app.register_blueprint(api.create_blueprint(actuator, access=Access(load_token(state_dir / "token"))))
    assert error(app.test_client().get(BASE, headers=auth))[:2] == (500, "internal_error")
