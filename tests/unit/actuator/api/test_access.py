import base64

import pytest
from flask import Flask

from mempressure.http.users import Users
from mempressure_actuator.api.access import Access
from mempressure_actuator.api.answers import RequestError, failure
from mempressure_actuator.api.token import Token
from tests.support.builders.certificates import HASH, PASSWORD

SECRET = "a-token-of-sixteen"  # noqa: S105 -- of these tests
BEARER = {"Authorization": f"Bearer {SECRET}"}
BASIC = {"Authorization": "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()}
HERE = "127.0.0.1:10062"
OUTSIDE = "https://memory.example.org"


@pytest.fixture
def ask():
    """Ask a server with these rules; the status, and the message or "" where the request may pass."""

    def ask(method="GET", headers=None, *, address=HERE, **rules):
        access = Access(Token(SECRET), **{"host": "127.0.0.1"} | rules)
        app = Flask("app")
        app.before_request(access.check)
        app.register_error_handler(RequestError, failure)
        app.add_url_rule("/", "page", lambda: "in", methods=["GET", "POST", "PUT"])
        environ = {"HTTP_HOST": address} if address is not None else {}
        answer = app.test_client().open("/", method=method, headers=headers, environ_overrides=environ)
        return answer.status_code, "" if answer.status_code < 400 else answer.get_json()["error"]["message"]

    return ask


@pytest.fixture
def users():
    made = Users({"ann": HASH})
    return lambda: made


def test_on_loopback_reads_are_free_and_changes_need_the_token(ask):
    assert ask()[0] == ask("HEAD")[0] == 200
    for method in ("POST", "PUT"):
        assert ask(method)[0] == 401
        assert ask(method, {"Authorization": "Bearer wrong"})[0] == 401
        assert ask(method, {"Authorization": f"Basic {SECRET}"})[0] == 401
        assert ask(method, BEARER)[0] == 200


@pytest.mark.parametrize("host", ["", "0.0.0.0", "192.0.2.7", "::", None])  # noqa: S104 -- what is to be guarded
def test_beyond_loopback_and_in_other_peoples_applications_everything_needs_it(ask, host):
    assert ask(host=host)[0] == ask("POST", host=host)[0] == 401
    assert ask(headers=BEARER, host=host)[0] == ask("POST", BEARER, host=host, address="node7:10062")[0] == 200


def test_where_there_are_users_everything_needs_one_or_the_token(ask, users):
    for host in ("127.0.0.1", ""):
        assert ask(host=host, users=users)[0] == ask("POST", host=host, users=users)[0] == 401
        for right in (BEARER, BASIC):
            assert ask("GET", right, host=host, users=users)[0] == ask("POST", right, host=host, users=users)[0] == 200
        wrong = {"Authorization": "Basic " + base64.b64encode(b"ann:wrong").decode()}
        assert ask("POST", wrong, host=host, users=users)[0] == 401
    assert ask("POST", BASIC)[0] == 401  # without users there is none


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Host"])
def test_what_came_through_a_proxy_is_not_from_this_machine_whatever_it_says(ask, name):
    assert ask(headers={name: "127.0.0.1"})[0] == 401
    assert ask(headers={name: "127.0.0.1", **BEARER})[0] == 200
    assert ask(headers={name: "127.0.0.1"}, host="192.0.2.7")[0] == 401


@pytest.mark.parametrize("address", ["localhost", "LOCALHOST:10062", "127.0.0.1", "127.9.9.9:1", "[::1]:10062"])
def test_a_server_on_loopback_is_found_under_the_names_of_loopback(ask, address):
    assert ask(address=address)[0] == 200


@pytest.mark.parametrize(
    "address",
    ["evil.example.org", "127.0.0.1.evil.example.org", "192.0.2.7:10062", "localhost.evil.org:10062", "[2001:db8::1]"],
)
def test_and_under_no_others(ask, address):
    status, message = ask(address=address)
    assert status == 421
    assert "127.0.0.1" in message
    assert ask("POST", BEARER, address=address)[0] == 421


def test_the_external_url_is_not_loopback_and_so_needs_credentials(ask):
    external = {"address": "memory.example.org", "external_url": OUTSIDE}
    assert ask(**external)[0] == 401
    assert ask(headers=BEARER, **external)[0] == 200
    assert ask(headers=BEARER, **external | {"address": "memory.example.org:8443"})[0] == 421


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": f"http://{HERE}"}, True),
        ({"Origin": f"HTTP://{HERE}/"}, True),
        ({"Origin": f"https://{HERE}"}, True),  # TLS may end in a proxy
        ({"Origin": "http://127.0.0.1"}, False),
        ({"Origin": "http://127.0.0.1:8080"}, False),
        ({"Origin": "http://localhost:10062"}, False),
        ({"Origin": "http://evil.example.org"}, False),
        ({"Origin": f"http://evil.example.org/{HERE}"}, False),
        ({"Origin": f"http://{HERE}@evil.example.org"}, False),
        ({"Origin": f"http://{HERE}.evil.example.org"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://[::1"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": f"http://{HERE}"}, False),
        ({"Origin": OUTSIDE}, True),
        ({"Origin": f"{OUTSIDE}:443"}, True),
        ({"Origin": "http://memory.example.org"}, False),
        ({"Origin": f"{OUTSIDE}:8443"}, False),
    ],
)
@pytest.mark.parametrize("credentials", [BEARER, BASIC])
def test_who_may_have_a_browser_change_something(ask, users, headers, allowed, credentials):
    status, message = ask("POST", headers | credentials, users=users, external_url=OUTSIDE)
    assert status == (200 if allowed else 403), message
    assert ask("GET", headers | credentials, users=users, external_url=OUTSIDE)[0] == 200


def test_a_default_port_is_no_other_origin(ask):
    headers = BEARER | {"Origin": "http://localhost"}
    assert ask("POST", headers, address="localhost:80")[0] == ask("POST", headers, address="localhost")[0] == 200


def test_a_request_without_a_host_is_refused(ask):
    assert ask(address="")[0] == 400
