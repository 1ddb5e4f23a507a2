import re
from html import unescape

import pytest

from mempressure.config.configuration import load_configuration
from mempressure.config.thresholds import Thresholds
from mempressure.control.records import ActionRecord, Cycle
from mempressure.state.records import PackageState
from mempressure_actuator.actuator import Actuator
from mempressure_actuator.api.access import Access
from mempressure_actuator.api.token import load_token
from mempressure_actuator.application import create_app
from mempressure_actuator.page import sign_in
from mempressure_actuator.page.sessions import SESSION_SECONDS

MIB = 1 << 20
GOOD = {"warning": "50", "unload_packages": "70", "aggressive_unload": "80", "emergency": "97.5"}
HOSTILE = "<script>alert('1')</script>\"&"


@pytest.fixture
def signed_in(client, token):
    assert client.post("/sign-in", data={"token": token}).status_code == 303
    return client


@pytest.fixture
def shop(publish_worker, proc):
    proc.process(101)

    def publish(*packages, **options):
        defaults = {"budget_bytes": 100 * MIB, "proportional_bytes": 43 * MIB}
        return publish_worker(packages=packages or ["pandas"], **(defaults | options))

    return publish


def text_of(response):
    """Return what a person reads: without tags, spaces as one."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.text)))


def form_token(client):
    return re.search(r'name="form_token" value="([^"]+)"', client.get("/").text)[1]


def value_of(response, name):
    return unescape(re.search(rf'name="{name}" value="([^"]*)"', response.text)[1])


def thresholds(actuator):
    return list(actuator.settings.current().thresholds.as_dict().values())


DEFAULTS = list(Thresholds().as_dict().values())


# What is shown


def test_a_node_without_workers_says_what_is_missing(client, runtime_dir):
    text = text_of(client.get("/"))
    assert f"No worker reports here. This actuator reads {runtime_dir} : is MEMPRESSURE_RUNTIME_DIR the same" in text
    assert "No alert: every scope is below its thresholds." in text
    assert "Nothing has been unloaded yet." in text
    assert "No heartbeat since the start" in text
    assert "The control loop is not running" in text  # this actuator was not started


def test_the_host_is_shown_with_level_usage_and_trend(client):
    text = text_of(client.get("/"))
    assert "Host low" not in text
    assert re.search(r"Host\s+medium\s+50\.0\s+% 4\.0 of 8\.0 GiB used, steady", text), text


def test_packages_are_shown_with_memory_idle_time_mechanism_and_workers(client, shop):
    options = {"source": "import", "timeout": 60.0}
    isolated = {"mechanism": "stop", "source": "process", "timeout": 60.0, "memory_bytes": 30.0 * MIB}
    shop(
        PackageState(name="pandas", loaded=2.0, result_bytes=9.0 * MIB, last_used=1e9 - 90, **isolated),
        PackageState(name="torch", loaded=1.0, active_calls=4.0, waiting_calls=3.0, **isolated),
        PackageState(name="sympy", mechanism="recycle", last_used=-1.0, **options),
        PackageState(name="numpy", mechanism="recycle", loaded=1.0, last_used=-1.0, keep_loaded=True, **options),
        PackageState(name="lxml", mechanism="recycle", loaded=1.0, active_calls=2.0, verdict="stop", **options),
    )
    page = client.get("/")
    rows = {
        text_of_cell(row)[0].split(" ")[0]: text_of_cell(row)
        for row in re.findall(r"<tr id=.*?</tr>", page.text, re.DOTALL)
    }
    assert rows["pandas"][1] == "30.0 MiB 9.0 MiB in workers by results"
    assert rows["pandas"][2].endswith("timeout 60 s")
    assert rows["pandas"][3:] == ["stop", "1 of 1 2 processes", "Unload"]
    assert rows["torch"][1:] == ["30.0 MiB", "in use timeout 60 s", "stop", "1 of 1 1 process, 3 calls wait", "Unload"]
    assert rows["sympy"] == ["sympy", "-", "not loaded", "recycle", "0 of 1", ""]
    assert rows["numpy"][0] == "numpy kept loaded"
    assert rows["numpy"][2] == "unknown timeout 60 s"
    assert rows["lxml"][2:4] == ["in use timeout 60 s", "recycle rehearsal: stop"]


def test_an_app_is_led_by_its_roles_and_ends_with_advice(client, publish_worker, proc):
    sizes = {"proportional_bytes": 100.0 * MIB, "private_bytes": 80.0 * MIB, "baseline_bytes": 50.0 * MIB}
    served = {"supervisor": "gunicorn", "supervisor_pid": 9, "role": "worker", "supervisor_bytes": 20.0 * MIB}
    package = {"mechanism": "recycle", "source": "import", "timeout": 60.0, "loaded": 1.0}
    pandas = PackageState(name="pandas", last_used=-1.0, memory_bytes=10.0 * MIB, late_bytes=10.0 * MIB, **package)
    kept = PackageState(name="numpy", last_used=-1.0, memory_bytes=1.0 * MIB, **package)
    for pid in (101, 102):
        proc.process(pid)
        publish_worker(pid=pid, packages=[pandas, kept], last_work=1.0, late_bytes=10.0 * MIB, **sizes, **served)
    page = client.get("/")
    text = text_of(page)
    assert "gunicorn master 1 process 20.0 MiB 0 B 20.0 MiB - - - -" in text
    assert re.search(
        r"gunicorn worker 2 processes 200.0 MiB 160.0 MiB 40.0 MiB 100.0 MiB 20.0 MiB 40.0 MiB \d+ d \d+ h", text
    )
    bars = [
        re.findall(r'class="part (\w+)" x="(.*?)" width="(.*?)"', bar) for bar in page.text.split('class="split"')[1:]
    ]
    assert bars == [
        [("shared", "0.00%", "10.00%")],
        [
            ("shared", "0.00%", "20.00%"),
            ("fresh", "20.00%", "50.00%"),
            ("late", "70.00%", "10.00%"),
            ("grown", "80.00%", "20.00%"),
        ],
    ]
    assert re.search(r"numpy 1?.* worker \d+ d", text)
    assert text.index("gunicorn worker") < text.index("pandas")
    assert "30.0 MiB less at rest, 20.0 MiB less at the peak : share what 2 gunicorn workers load" in text
    assert "mempressure run --manage --share -- COMMAND" in text
    assert "20.0 MiB less at rest, 2.0 MiB less at the peak : run what uses pandas" in text
    assert '@loader.isolated("pandas")' in text


def text_of_cell(row):
    cells = re.findall(r"<t[hd][ >].*?</t[hd]>", row, re.DOTALL)
    return [unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", cell)).strip()) for cell in cells]


def test_an_app_under_pressure_has_its_alert_and_suggestions(client, shop):
    shop(proportional_bytes=93 * MIB)
    text = text_of(client.get("/"))
    assert "Critical memory pressure of shop: 93.0% memory usage" in text
    assert "Critical memory usage detected shop" in text


def test_an_app_without_a_limit_says_how_to_get_a_level(client, shop):
    shop(budget_bytes=0)
    text = text_of(client.get("/"))
    assert "43.0 MiB No limit, so no level" in text
    assert "MEMPRESSURE_BUDGET" in text


def test_an_app_that_tracks_nothing_says_how_to(client, publish_worker, proc):
    proc.process(101)
    publish_worker()
    assert "shop tracks no package: declare them" in text_of(client.get("/"))


def test_alerts_and_suggestions_turned_off_are_shown(client, actuator, token):
    for switch in ("pressure-alerts", "optimization-suggestions"):
        headers = {"Authorization": f"Bearer {token}"}
        assert client.post(f"/api/packages/memory/{switch}/false", headers=headers).status_code == 200
    text = text_of(client.get("/"))
    assert "Alerts are turned off; thresholds still unload packages" in text
    assert "Suggestions are turned off" in text


def test_a_dry_run_is_shown(actuator, client, monkeypatch):
    monkeypatch.setattr(actuator, "dry_run", ("stop", "recycle"))
    dry = cycle(1).actions[0]
    dry.workers, dry.reclaimed_bytes, dry.expected_bytes, dry.dry_run = 0, 0, 20 * MIB, True
    actuator.store.record(cycle(1, actions=[dry]))
    text = text_of(client.get("/"))
    assert "Dry run of stop, recycle: decided and recorded, not carried out" in text
    assert "pandas by stop: dry run, 20.0 MiB expected" in text


def cycle(number, **options):
    action = ActionRecord(
        app="shop",
        mechanism="stop",
        packages=("pandas",),
        reason="",
        reclaimed_bytes=30 * MIB,
        workers=1,
        skipped=(),
        errors=(),
        started=1e9,
        duration_seconds=0.1,
    )
    defaults = {
        "scope": "app",
        "app": "shop",
        "trigger": "webhook",
        "alert_key": "k",
        "alert_level": "high",
        "pressure_since": 1e9,
        "strategy": "high",
        "started": 1e9,
        "ended": 1e9 + 1,
        "usage_before": 0.92,
        "used_before": 92,
        "usage_after": 0.62,
        "used_after": 62,
        "outcome": "relieved",
        "actions": [action],
    }
    return Cycle(id=f"c{number}", **(defaults | options))


def test_what_was_done_is_shown_newest_first(client, actuator):
    actuator.store.record(cycle(1))
    failed = cycle(2).actions[0]
    failed.workers, failed.errors, failed.skipped = 0, ("no agent",), ("a", "b", "c", "d")
    actuator.store.record(cycle(2, trigger="api", strategy="forced", scope="host", app="", actions=[failed]))
    text = text_of(client.get("/"))
    first, second = text.index("forced by request"), text.index("alert high, strategy high")
    assert first < second
    assert "pandas by stop in shop: failed no agent; a; b; and 2 more" in text
    assert re.search(
        r"shop, alert high, strategy high\s+92\.0 % → 62\.0 % pandas by stop: 30\.0 MiB from 1 worker", text
    )


def test_what_callbacks_brought_is_shown(client, actuator):
    called = cycle(1).actions[0]
    called.mechanism, called.packages, called.workers = "callbacks", (), 2
    called.notes = ("worker 7: drop gave back 30.0 MiB", f"worker 8: on_pressure callback drop failed: {HOSTILE}")
    actuator.store.record(cycle(1, actions=[called]))
    told = f"worker 7: drop gave back 30.0 MiB; worker 8: on_pressure callback drop failed: {HOSTILE}"
    assert f"callbacks: 30.0 MiB from 2 workers {told}" in text_of(client.get("/"))


def test_a_history_that_cannot_be_read_leaves_the_rest(client, actuator):
    actuator.store.close()
    page = client.get("/")
    assert page.status_code == 200
    assert "The history cannot be read" in text_of(page)


def test_a_host_that_cannot_be_measured_is_reported(client, proc):
    (proc.root / "meminfo").unlink()
    page = client.get("/")
    assert page.status_code == 503
    assert "memory cannot be measured" in text_of(page)


def test_names_are_text_wherever_they_are_shown(signed_in, actuator, shop):
    shop(HOSTILE, app=HOSTILE, proportional_bytes=93 * MIB)
    actuator.store.record(cycle(1, app=HOSTILE, alert_level=HOSTILE, strategy=HOSTILE))
    pages = [
        signed_in.get("/"),
        signed_in.post("/unload", data={"app": HOSTILE, "package": HOSTILE + "!"}),
        signed_in.post("/unload", data={"app": HOSTILE, "package": HOSTILE + "!", "form_token": form_token(signed_in)}),
        signed_in.post("/thresholds", data={"warning": HOSTILE}),
    ]
    assert len({page.status_code for page in pages}) == 3
    for page in pages:
        assert "<script>alert" not in page.text
        assert page.text.count("<script") == 1
        assert not re.search(r"=\"[^\">]*<", page.text)


def test_a_pages_headers_let_nothing_else_in(client):
    for path in ("/", "/static/page.js", "/static/page.css"):
        with client.get(path) as answer:
            headers = answer.headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "same-origin")
    assert client.get("/").headers["Cache-Control"] == "no-store"
    page = client.get("/").text
    assert not re.search(r"style=|<style| on\w+=|javascript:|https?://", page)


def test_every_link_leads_somewhere(client):
    for target in re.findall(r'(?:href|src)="(/[^"]*)"', client.get("/").text):
        with client.get(target) as answer:
            assert answer.status_code in (200, 503), target


# Signing in


def test_the_token_opens_a_session_in_a_cookie_that_scripts_and_sites_do_not_get(client, token):
    answer = client.post("/sign-in", data={"token": f" {token} "})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={int(SESSION_SECONDS)}"))
    assert token not in cookie
    assert "Secure" not in cookie
    assert "Signed in" in text_of(client.get("/"))


def test_with_tls_the_cookie_never_leaves_it(client, token):
    answer = client.post("/sign-in", data={"token": token}, base_url="https://localhost")
    assert "Secure" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("given", ["guessed", "x" * 43, "\N{SNOWMAN}"])
def test_a_wrong_token_opens_nothing(client, given):
    answer = client.post("/sign-in", data={"token": given})
    assert answer.status_code == 401
    assert "The token is wrong" in text_of(answer)
    assert "Set-Cookie" not in answer.headers
    assert given not in answer.text


def test_a_missing_token_is_reported(client):
    answer = client.post("/sign-in")
    assert (answer.status_code, "This needs the token" in text_of(answer)) == (401, True)


def test_signing_out_ends_the_session_and_not_only_the_cookie(signed_in):
    cookie = signed_in.get_cookie("mempressure_session")
    assert signed_in.post("/sign-out").status_code == 303
    assert signed_in.get_cookie("mempressure_session") is None
    signed_in.set_cookie("mempressure_session", cookie.value)
    assert "Signed in" not in text_of(signed_in.get("/"))


def test_actuators_on_one_machine_do_not_share_a_cookie(client, token):
    answers = [client.post("/sign-in", data={"token": token}, base_url=f"http://localhost:{port}") for port in (1, 2)]
    assert len({answer.headers["Set-Cookie"].partition("=")[0] for answer in answers}) == 2


def test_beyond_loopback_nothing_is_shown_before_signing_in(client_of, shop, token):
    shop()
    client = client_of("0.0.0.0")  # noqa: S104 -- nothing listens
    pages = [
        client.get("/"),
        client.post("/thresholds", data=GOOD),
        client.post("/unload", data={"package": "pandas"}),
        client.post("/sign-in", data={"token": "guessed"}),
    ]
    for page in pages:
        assert page.status_code == 401
        assert page.headers["WWW-Authenticate"] == 'Bearer realm="mempressure"'
        assert "you have to sign in first" in text_of(page)
        assert not re.search(r"GiB|MiB|shop", page.text)
    assert client.post("/sign-in", data={"token": token}).status_code == 303
    assert "43.0 of 100.0 MiB" in text_of(client.get("/"))


# Changing something


def test_thresholds_are_set_in_a_session(signed_in, actuator):
    answer = signed_in.post("/thresholds", data=GOOD | {"form_token": form_token(signed_in)})
    assert answer.status_code == 303
    assert thresholds(actuator) == [0.5, 0.7, 0.8, 0.975]
    page = signed_in.get(answer.headers["Location"])
    assert "Thresholds set: Warning 50 %, Unload packages 70 %, Aggressive unload 80 %, Emergency 97.5 %" in text_of(
        page
    )
    assert value_of(page, "emergency") == "97.5"


def test_thresholds_are_set_with_the_token_typed_beside_them_which_signs_in(client, actuator, token):
    assert client.post("/thresholds", data=GOOD | {"token": token}).status_code == 303
    assert thresholds(actuator) == [0.5, 0.7, 0.8, 0.975]
    assert "Signed in" in text_of(client.get("/"))


def expired(client, token, monkeypatch):
    client.post("/sign-in", data={"token": token})
    sent = {"form_token": form_token(client)}
    now = sign_in.time.monotonic()
    monkeypatch.setattr(sign_in.time, "monotonic", lambda: now + SESSION_SECONDS + 1)
    return sent


def stale(client, token, _monkeypatch):
    client.post("/sign-in", data={"token": token})
    return {"form_token": "another"}


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda *_: {}, (401, "This needs the token")),
        (lambda *_: {"token": "wrong"}, (401, "The token is wrong")),
        (expired, (401, "Your sign-in has ended")),
        (stale, (403, "This page was loaded before you signed in")),
    ],
    ids=["missing", "wrong", "expired", "stale"],
)
def test_a_refused_form_shows_why_and_keeps_its_input(client, actuator, token, shop, monkeypatch, prepare, said):
    status, message = said
    shop()
    typed = GOOD | {"warning": "5x"}
    sent = prepare(client, token, monkeypatch)
    answer = client.post("/thresholds", data=typed | sent)
    assert (answer.status_code, message in text_of(answer)) == (status, True)
    assert {name: value_of(answer, name) for name in typed} == typed
    assert thresholds(actuator) == DEFAULTS
    answer = client.post("/unload", data={"app": "shop", "package": "pandas"} | sent)
    assert (answer.status_code, message in text_of(answer)) == (status, True)
    assert "Unload pandas in shop" in answer.text
    assert actuator.store.cycle_count() == 0
    assert token not in answer.text


def test_the_token_typed_beside_a_mistake_need_not_be_typed_again(client, actuator, token):
    answer = client.post("/thresholds", data=GOOD | {"warning": "x", "token": token})
    assert answer.status_code == 400
    again = {"form_token": value_of(answer, "form_token")}
    assert client.post("/thresholds", data=GOOD | again).status_code == 303
    assert thresholds(actuator) == [0.5, 0.7, 0.8, 0.975]


def test_errors_are_shown_at_their_fields(signed_in, actuator):
    typed = GOOD | {"warning": "8o", "emergency": "60"}
    answer = signed_in.post("/thresholds", data=typed | {"form_token": form_token(signed_in)})
    assert answer.status_code == 400
    assert "Warning is not a number; send a percentage above 5 and up to 100" in text_of(answer)
    assert "Emergency must be above Aggressive unload, 80 %" in text_of(answer)
    assert {name: value_of(answer, name) for name in typed} == typed
    assert thresholds(actuator) == DEFAULTS


def test_what_the_form_does_not_know_the_settings_still_refuse(signed_in, actuator):
    answer = signed_in.post("/thresholds", data=GOOD | {"warning": "5.001", "form_token": form_token(signed_in)})
    assert answer.status_code == 400
    assert "too close to the hysteresis" in text_of(answer)
    assert thresholds(actuator) == DEFAULTS


def test_thresholds_below_the_floor_are_refused(proc, runtime_dir, tmp_path, state_dir, token):
    environ = {
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(tmp_path / "floor"),
        "MEMPRESSURE_THRESHOLD_FLOOR": "0.55",
    }
    made = Actuator(load_configuration(environ=environ), proc=proc.path)
    client = create_app(made, access=Access(load_token(state_dir / "token"), host="127.0.0.1")).test_client()
    answer = client.post("/thresholds", data=GOOD | {"token": token})
    made.stop()
    assert answer.status_code == 400
    assert "Nothing was changed: threshold" in text_of(answer)


def test_settings_that_cannot_be_stored_are_reported(signed_in, actuator, monkeypatch):
    def full(_change):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(actuator.settings, "change", full)
    answer = signed_in.post("/thresholds", data=GOOD | {"form_token": form_token(signed_in)})
    assert answer.status_code == 503
    assert "the settings could not be stored: No space left on device" in text_of(answer)
    assert value_of(answer, "emergency") == "97.5"


def test_an_untracked_package_is_reported(signed_in):
    answer = signed_in.post("/unload", data={"package": "pandas", "form_token": form_token(signed_in)})
    assert answer.status_code == 503
    assert "Nothing was unloaded: no worker of app here tracks 'pandas'" in text_of(answer)


def test_a_package_in_use_is_not_unloaded_and_may_be_forced(signed_in, shop):
    shop(PackageState(name="pandas", mechanism="stop", source="process", timeout=60.0, loaded=1.0, active_calls=1.0))
    sent = {"app": "shop", "package": "pandas", "form_token": form_token(signed_in)}
    answer = signed_in.post("/unload", data=sent)
    page = signed_in.get(answer.headers["Location"])
    assert "pandas in shop was not unloaded: is in use" in text_of(page)
    assert value_of(page, "force") == "true"
    assert "not unloaded: is in use" not in text_of(signed_in.get(answer.headers["Location"]))
    answer = signed_in.post("/unload", data=sent | {"force": "true"})
    page = signed_in.get(answer.headers["Location"])
    assert "pandas in shop was not unloaded: is in use" in text_of(page)
    assert 'name="force"' not in page.text


FOREIGN = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:8000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "none"},
)


@pytest.mark.parametrize("path", ["/thresholds", "/unload", "/sign-in", "/sign-out"])
def test_another_sites_page_cannot_send_a_form(signed_in, actuator, token, path):
    sent = GOOD | {"form_token": form_token(signed_in), "token": token, "package": "pandas"}
    for headers in FOREIGN:
        answer = signed_in.post(path, data=sent, headers=headers)
        assert (answer.status_code, "sent from another site" in text_of(answer)) == (403, True), headers
        assert "Set-Cookie" not in answer.headers
        assert thresholds(actuator) == DEFAULTS


def test_a_form_of_this_page_is_taken(signed_in, actuator):
    headers = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    answer = signed_in.post("/thresholds", data=GOOD | {"form_token": form_token(signed_in)}, headers=headers)
    assert answer.status_code == 303


def test_another_host_is_refused(signed_in):
    assert signed_in.post("/thresholds", data=GOOD, headers={"Host": "evil.example"}).status_code == 421


def test_the_address_of_a_form_leads_to_the_page(client):
    for path in ("/thresholds", "/unload", "/sign-in", "/sign-out"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_too_much_is_refused(signed_in):
    assert signed_in.post("/thresholds", data={"warning": "5" * (1 << 21)}).status_code == 413
