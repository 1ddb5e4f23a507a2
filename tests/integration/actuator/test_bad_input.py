"""What cannot be used is refused with a word on what to send, and changes nothing: asked of the real server."""

import json
import socket
from contextlib import closing

import pytest

from tests.support.servers.actuator_process import DEADLINE, Actuator

MEMORY = "/api/packages/memory"
THRESHOLDS = {"warning": 0.5, "unload_packages": 0.7, "aggressive_unload": 0.8, "emergency": 0.97}
JSON = {"Content-Type": "application/json"}


def thresholds(**changes):
    return json.dumps({name: value for name, value in {**THRESHOLDS, **changes}.items() if value != "gone"}).encode()


def of_thresholds(body, status, *words, headers=JSON):
    return pytest.param("POST", f"{MEMORY}/pressure-thresholds", body, headers, status, words)


def of_preference(body, *words):
    return pytest.param("PUT", "/api/packages/pandas/preference", body, JSON, 400, words)


def of_unload(body, *words):
    return pytest.param("POST", "/api/packages/pandas/unload", body, JSON, 400, words)


def of_path(method, path, status, *words, body=None):
    return pytest.param(method, path, body, JSON if body else {}, status, words)


ASCENDING = "send warning < unload_packages < aggressive_unload < emergency"
NO_SLASH = "a package's name has no slash"
KEEP = b'{"keep_loaded": true}'
NOT_JSON = ("not JSON in UTF-8", "for example, {")
TABLE = [
    # numbers that are none
    of_thresholds(thresholds(warning=float("nan")), 400, *NOT_JSON),
    of_thresholds(thresholds(warning=float("inf")), 400, *NOT_JSON),
    of_thresholds(thresholds(warning=float("-inf")), 400, *NOT_JSON),
    of_thresholds(thresholds().replace(b"0.97", b"1e999"), 400, "out of range", "for example, {"),
    of_thresholds(thresholds(emergency=10**400), 400, "emergency=", "for example, {"),
    # text for numbers, and other types
    of_thresholds(thresholds(warning="0.5"), 400, 'warning="0.5"', "expected a number, got text", "for example, {"),
    of_thresholds(thresholds(warning=True), 400, "warning=true", "expected a number", "for example, {"),
    of_thresholds(thresholds(warning=None), 400, "warning=null", "expected a number, got null", "for example, {"),
    of_thresholds(thresholds(warning=[0.5]), 400, "warning=[0.5]", "for example, {"),
    of_thresholds(b"[0.5, 0.7, 0.8, 0.97]", 400, "expected an object, got an array", "for example, {"),
    # missing and unknown keys
    *(of_thresholds(thresholds(**{name: "gone"}), 400, f"{name} is missing", "for example, {") for name in THRESHOLDS),
    of_thresholds(thresholds(hysteresis=0.1), 400, "hysteresis is unknown", "for example, {"),
    of_thresholds(b"{}", 400, "is missing", "for example, {"),
    # out of order, equal, out of range
    of_thresholds(
        thresholds(emergency=0.8), 400, "emergency=0.8 must be above aggressive_unload=0.8", "send warning <"
    ),
    of_thresholds(
        thresholds(unload_packages=0.5), 400, "unload_packages=0.5 must be above warning=0.5", "send warning <"
    ),
    of_thresholds(thresholds(warning=0.75), 400, "unload_packages=0.7 must be above warning=0.75", ASCENDING),
    of_thresholds(thresholds(warning=0), 400, "warning=0 cannot be used", "for example, {"),
    of_thresholds(thresholds(warning=-0.5), 400, "warning=-0.5 cannot be used", "for example, {"),
    of_thresholds(thresholds(warning=0.05), 400, "warning=0.05", "send a ratio in (0.05, 1]"),
    of_thresholds(thresholds(emergency=97), 400, "emergency=97 cannot be used", "<= 1", "for example, {"),
    # bytes, content types and sizes
    of_thresholds(b"", 400, *NOT_JSON),
    of_thresholds(b"{", 400, *NOT_JSON),
    of_thresholds(b"\xff\xfe", 400, *NOT_JSON),
    of_thresholds(b'{"\xff": 0.5}', 400, *NOT_JSON),
    of_thresholds(thresholds().decode().encode("utf-16"), 400, *NOT_JSON),
    of_thresholds(thresholds(), 415, "'missing'", "send application/json", headers={}),
    of_thresholds(thresholds(), 415, "'text/plain'", "send application/json", headers={"Content-Type": "text/plain"}),
    of_thresholds(
        b"warning=0.5", 415, "send application/json", headers={"Content-Type": "application/x-www-form-urlencoded"}
    ),
    of_thresholds(thresholds() + b" " * 10_000_000, 413, "more than 1048576 bytes", "send less"),
    # switches
    *(
        of_path("POST", f"{MEMORY}/{path}/{word}", 400, f"enabled='{word}'", "send true or false")
        for path in ("pressure-alerts", "optimization-suggestions")
        for word in ("True", "FALSE", "1", "0", "on", "maybe", "null")
    ),
    of_path("POST", f"{MEMORY}/pressure-alerts/", 404, "no such path", "/api/openapi.json"),
    of_path("POST", f"{MEMORY}/pressure-alerts/true", 413, "send less", body=b" " * 10_000_000),
    # packages
    of_path("PUT", "/api/packages/a/b/preference", 404, NO_SLASH, body=KEEP),
    of_path("PUT", "/api/packages/a%2Fb/preference", 404, NO_SLASH, body=KEEP),
    of_path("POST", "/api/packages/../../etc/unload", 404, "no such path"),
    of_path("POST", "/api/packages/pandas%2funload/unload", 404, "no such path"),
    of_path("PUT", f"/api/packages/{'x' * 201}/preference", 400, "1 to 200", body=KEEP),
    of_path("PUT", "/api/packages/a%00b/preference", 400, "printable", body=KEEP),
    of_path("PUT", "/api/packages/%ff%fe/preference", 400, "printable", body=KEEP),
    of_path("POST", "/api/packages/nobody/unload", 404, "tracks 'nobody'", "known are"),
    of_preference(b"{}", "keep_loaded is missing", 'for example, {"app":"shop","keep_loaded":true}'),
    of_preference(b'{"keep_loaded": "true"}', 'keep_loaded="true"', "for example, {"),
    of_preference(b'{"keep_loaded": 1}', "keep_loaded=1", "for example, {"),
    of_preference(b'{"keep_loaded": true, "app": null}', "app=null", "for example, {"),
    of_preference(b'{"keep_loaded": true, "apps": ""}', "apps is unknown", "for example, {"),
    of_preference(json.dumps({"keep_loaded": True, "app": "x" * 201}).encode(), "app=", "<= 200", "for example, {"),
    of_unload(b'{"force": "yes"}', 'force="yes"', "for example, {"),
    of_unload(b'{"app": 1}', "app=1", "for example, {"),
    of_unload(b"[]", "expected an object", "for example, {"),
    # queries, methods and paths
    *(
        of_path("GET", f"{MEMORY}/history?limit={limit}", 400, "limit=", "send 1 to 1000")
        for limit in ("0", "1001", "-1", "x", "1e2", "NaN", "%D9%A3", "")
    ),
    of_path("GET", f"{MEMORY}/pressure-thresholds", 405, "send POST"),
    of_path("DELETE", "/api/packages", 405, "send GET, HEAD"),
    of_path("POST", f"{MEMORY}/system-info", 405, "send GET, HEAD"),
    of_path("GET", "/nowhere", 404, "/api/openapi.json"),
    of_path("GET", "/api/packages/nowhere", 404, "/api/openapi.json"),
    # the webhook
    of_path("POST", "/webhook/alertmanager", 400, "send a notification", body=b'{"version": "4", "status": "\xff"}'),
    of_path("POST", "/webhook/alertmanager", 400, "send a notification", body=b'{"version": "3"}'),
]


@pytest.fixture(scope="module")
def actuator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad-input")
    (folder / "runtime").mkdir(mode=0o755)
    process = Actuator(folder / "runtime", folder / "state", folder / "log")
    process.start()
    assert process.request("POST", f"{MEMORY}/pressure-thresholds", THRESHOLDS)[0] == 200
    yield process
    process.close()


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "words"), TABLE)
def test_what_cannot_be_used_is_said_and_changes_nothing(actuator, method, path, body, headers, status, words):
    stored = actuator.state_dir / "settings.json"
    before = stored.read_bytes(), stored.stat().st_mtime_ns
    answered, sent, content = actuator.request(method, path, body, headers=headers)
    assert answered == status, content
    assert sent["Content-Type"] == "application/json"
    assert set(content) == {"status", "error"}
    assert content["status"] == "error"
    assert set(content["error"]) == {"code", "message"}
    for word in words:
        assert word in content["error"]["message"]
    assert (stored.read_bytes(), stored.stat().st_mtime_ns) == before
    assert "Traceback" not in actuator.text()


def test_a_body_of_unknown_length_is_refused_where_it_becomes_too_long(actuator):
    host, port = actuator.address.split(":")
    head = (
        f"POST {MEMORY}/pressure-thresholds HTTP/1.1\r\nHost: {actuator.address}\r\nConnection: close\r\n"
        f"Authorization: Bearer {actuator.token()}\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with closing(socket.create_connection((host, int(port)), timeout=DEADLINE)) as connection:
        connection.sendall(head.encode() + piece * 32 + b"0\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"too_large"' in answer
