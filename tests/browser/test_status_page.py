"""The status page in a real browser, of a real actuator that manages the sample under a real gunicorn."""

import re
from functools import partial

import pytest
import requests
from playwright.sync_api import expect

from mempressure.config.thresholds import Thresholds
from tests.browser.accessibility import obstacles
from tests.browser.conftest import HOSTILE, MIB
from tests.support import waiting

until = partial(waiting.until, seconds=20)
DEFAULTS = Thresholds().as_dict()
PHONE = {"width": 360, "height": 740}


@pytest.fixture(autouse=True)
def _defaults(node):
    node.actuator.request("POST", "/api/packages/memory/pressure-thresholds", DEFAULTS)


def thresholds(node):
    return node.actuator.request("GET", "/api/packages/memory/settings")[2]["data"]["thresholds"]


def row(page, package):
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=package, exact=True))


def unload(page, package):
    page.get_by_role("button", name=f"Unload {package} in shop", exact=True).click()


def sign_in(page, node):
    page.get_by_text("Sign in").first.click()
    page.locator("#sign-in-token").fill(node.actuator.token())
    page.locator("#sign-in-token").press("Enter")
    expect(page.get_by_text("Signed in")).to_be_visible()


def load(node, path="/report?rows=10"):
    requests.get(node.sample + path, timeout=60).raise_for_status()


def memory_of_pandas(node):
    (app,) = node.actuator.request("GET", "/api/packages")[2]["data"]["apps"]
    (pandas,) = (package for package in app["packages"] if package["package"] == "pandas")
    return pandas["memory_bytes"]


def test_it_is_read_with_everything_on_it(node, look):
    load(node)
    page = look(node.address)
    assert page.title() == "n1 | mempressure"
    # Both move while pandas' process settles, and the page follows every five seconds.
    until(lambda: f"{memory_of_pandas(node) / MIB:.1f} MiB" in row(page, "pandas").inner_text(), "the same memory")
    expect(row(page, "pandas")).to_contain_text("stop")
    expect(row(page, "sympy")).to_contain_text("recycle")
    worker = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="gunicorn worker 2 processes"))
    expect(worker).to_contain_text(re.compile(r"(\s*[\d.]+ MiB){4}"))
    expect(page.get_by_role("article").first).to_contain_text(re.compile(r"Host\s+(low|medium|high|critical)"))
    expect(page.get_by_role("article").nth(1)).to_contain_text(
        re.compile(r"shop.*2 workers.*[\d.]+ of 512\.0 MiB", re.DOTALL)
    )
    expect(page.get_by_role("img").first).to_have_accessible_name(re.compile("Usage in the last .* percent"))
    for heading in ("Memory", "Alerts", "Suggestions", "Applications", "What was done", "Thresholds"):
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    assert obstacles(page) == []


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without"])
def test_a_package_is_unloaded(node, look, scripts):
    load(node)
    until(lambda: "pandas" in loaded(node), "pandas")
    page = look(node.address, java_script_enabled=scripts)
    unload(page, "pandas")
    expect(page.get_by_text("This needs the token")).to_be_visible()
    expect(page.locator("#again-token")).to_be_focused()
    if scripts:
        assert obstacles(page) == []
    page.locator("#again-token").fill(node.actuator.token())
    page.get_by_role("button", name="Unload pandas in shop", exact=True).first.click()
    expect(page.get_by_text(re.compile("pandas in shop was not unloaded: .+"))).to_be_visible()
    assert "pandas" in loaded(node)
    page.get_by_role("button", name="Unload it even if").click()
    expect(
        page.get_by_text(re.compile(r"pandas in shop unloaded by stop in . workers?, [\d.]+ MiB given back"))
    ).to_be_visible()
    expect(row(page, "pandas")).to_contain_text("not loaded")
    expect(page.get_by_role("button", name="Unload pandas in shop", exact=True)).to_have_count(0)
    expect(page.get_by_role("listitem").filter(has_text="pandas by stop").first).to_contain_text("forced by request")
    assert "pandas" not in loaded(node)


def loaded(node):
    apps = node.actuator.request("GET", "/api/packages")[2]["data"]["apps"]
    return {package["package"] for app in apps for package in app["packages"] if package["loaded_workers"]}


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without"])
def test_thresholds_are_set_and_what_was_typed_survives_every_mistake(node, look, scripts):
    page = look(node.address, java_script_enabled=scripts)
    page.get_by_label("Warning").fill("5o")
    page.get_by_label("Emergency").fill("97,5 %")
    send = page.get_by_role("button", name="Set thresholds")
    for token, said in (("", "This needs the token"), ("guessed", "The token is wrong")):
        page.locator("#thresholds-token").fill(token)
        send.click()
        expect(page.get_by_role("alert")).to_contain_text(said)
        expect(page.get_by_label("Warning")).to_have_value("5o")
        expect(page.get_by_label("Emergency")).to_have_value("97,5 %")
        expect(page.locator("#thresholds-token")).to_be_focused()
        expect(page.locator("#thresholds-token")).to_have_value("")
    page.locator("#thresholds-token").fill(node.actuator.token())
    send.click()
    warning = page.get_by_label("Warning")
    expect(warning).to_have_accessible_description("Warning is not a number; send a percentage above 5 and up to 100")
    expect(warning).to_be_focused()
    expect(warning).to_have_value("5o")
    assert thresholds(node) == DEFAULTS
    warning.fill("50")
    send.click()
    expect(page.get_by_role("status").filter(has_text="Thresholds set: Warning 50 %")).to_be_visible()
    assert thresholds(node) == DEFAULTS | {"warning": 0.5, "emergency": 0.975}


def test_a_sign_in_that_has_ended_is_said_and_nothing_typed_is_lost(node, look):
    page = look(node.address)
    sign_in(page, node)
    page.get_by_label("Warning").fill("55")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert node.actuator.token() not in cookie["value"]
    page.context.add_cookies([cookie | {"value": "of-an-actuator-that-was-restarted"}])
    page.get_by_role("button", name="Set thresholds").click()
    expect(page.get_by_role("alert")).to_contain_text("Your sign-in has ended")
    expect(page.get_by_label("Warning")).to_have_value("55")
    page.locator("#thresholds-token").fill(node.actuator.token())
    page.locator("#thresholds-token").press("Enter")
    expect(page.get_by_role("status").filter(has_text="Thresholds set: Warning 55 %")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("Signed in")).to_have_count(0)
    assert page.context.cookies() == []


def test_what_changes_is_shown_and_what_is_typed_and_focused_stays(node, look, publish_app, withdraw_app):
    page = look(node.address)
    page.clock.install()
    page.reload()
    announcer = page.locator("#announcer")
    page.get_by_label("Warning").fill("55")
    button = page.get_by_role("button", name="Unload sympy in shop", exact=True)
    button.focus()
    page.evaluate("window.untouched = true")
    publish_app("till", "lxml", budget_bytes=100 * MIB, proportional_bytes=93 * MIB)
    page.clock.fast_forward(5000)
    expect(row(page, "lxml")).to_be_visible()
    expect(announcer).to_contain_text("till critical")
    expect(announcer).to_contain_text("alert emergency on till")
    expect(page.get_by_text("Critical memory pressure of till: 93.0% memory usage")).to_be_visible()
    expect(button).to_be_focused()
    expect(page.get_by_label("Warning")).to_have_value("55")
    page.get_by_role("button", name="Unload lxml in till", exact=True).focus()
    withdraw_app()
    page.clock.fast_forward(5000)
    expect(row(page, "lxml")).to_have_count(0)
    expect(page.get_by_role("heading", name="Applications")).to_be_focused()
    assert page.evaluate("window.untouched")


def test_nobody_is_asked_while_nobody_looks_and_silence_is_said(node, look):
    page = look(node.address)
    page.clock.install()
    page.reload()
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/") else None)
    page.evaluate(
        "Object.defineProperty(document, 'hidden', { get: () => window.away, configurable: true }); away = true"
    )
    page.clock.fast_forward(60_000)
    assert asked == []
    page.context.set_offline(True)
    page.evaluate("away = false; document.dispatchEvent(new Event('visibilitychange'))")
    lost = page.get_by_text("The actuator does not answer")
    expect(lost).to_be_visible()
    page.context.set_offline(False)
    page.clock.fast_forward(5000)
    expect(lost).to_be_hidden()
    assert len(asked) >= 2


def test_names_are_text(node, look, publish_app):
    publish_app(HOSTILE, HOSTILE, budget_bytes=100 * MIB, proportional_bytes=93 * MIB)
    page = look(node.address)
    sign_in(page, node)
    expect(page.get_by_role("rowheader", name=HOSTILE)).to_have_text(HOSTILE)
    page.get_by_role("button", name=f"Unload {HOSTILE} in {HOSTILE}").click()
    expect(page.locator("#notice")).to_contain_text(f"{HOSTILE} in {HOSTILE} was not unloaded")
    assert page.title() == "n1 | mempressure"
    assert page.locator("img").count() == 0
    assert obstacles(page) == []


def test_everything_is_reached_by_keyboard_and_shows_where_one_is(node, look):
    page = look(node.address)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.goto(f"http://{node.address}/")
    reached = []
    while True:
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => {
              const at = document.activeElement;
              if (at === document.body) return null;
              const { outlineStyle, outlineWidth } = getComputedStyle(at);
              const name = at.labels?.[0]?.textContent ?? at.getAttribute("aria-label") ?? at.textContent;
              return [name.replace(/\\s+/g, " ").trim(), outlineStyle !== "none" && parseFloat(outlineWidth) >= 2];
            }"""
        )
        if focused is None:
            break
        reached.append(focused[0])
        assert focused[1], focused
    packages = [name for name in reached if name.startswith("Unload ") and name.endswith(" in shop")]
    assert packages == sorted(packages)
    assert reached == [
        "Skip to the content",
        "Sign in",
        *packages,
        *("Warning %", "Unload packages %", "Aggressive unload %", "Emergency %", "Token", "Set thresholds"),
        *("Memory as JSON", "Packages as JSON", "The API", "Metrics", "Ready"),
    ]
    page.get_by_text("Sign in").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type(node.actuator.token())
    page.keyboard.press("Enter")
    expect(page.get_by_text("Signed in")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read_in_every_state(node, look, publish_app, scheme):
    publish_app("a-name-without-any-room-to-break-it-" * 4, HOSTILE * 3, budget_bytes=MIB, proportional_bytes=2 * MIB)
    page = look(node.address, viewport=PHONE, color_scheme=scheme)
    assert obstacles(page) == []
    page.get_by_text("Sign in").first.click()
    assert obstacles(page) == []
    page.get_by_label("Warning").fill("x")
    page.locator("#thresholds-token").fill(node.actuator.token())
    page.get_by_role("button", name="Set thresholds").click()
    expect(page.get_by_label("Warning")).to_have_accessible_description(re.compile("is not a number"))
    assert obstacles(page) == []
    unload(page, "sympy")
    expect(page.get_by_text("sympy in shop was not unloaded")).to_be_visible()
    assert obstacles(page) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 19, 24)"
    assert dark == (scheme == "dark")


def test_another_sites_form_changes_nothing(node, look):
    page = look(node.address)
    sign_in(page, node)
    other = page.context.new_page()
    other.set_content(
        f'<form method="post" action="http://{node.address}/thresholds"><input name="warning" value="50">'
        f'<input name="token" value="{node.actuator.token()}"><button>Win</button></form>'
    )
    other.get_by_role("button").click()
    expect(other.get_by_role("alert")).to_contain_text("This was sent from another site")
    assert thresholds(node) == DEFAULTS
