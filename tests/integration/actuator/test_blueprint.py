"""The API within an existing Flask application under gunicorn, mounted as docs/api.md says."""

import http.client
import json
import os
import re
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from mempressure_actuator.api.routes import ENDPOINTS
from stack.processes import Processes, free_port
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
MEMORY = "/api/packages/memory"
EXISTING = """
from flask import Flask

application = Flask("existing")


@application.get("/theirs")
def theirs():
    return "theirs"


@application.errorhandler(404)
def missing(_error):
    return "their own 404", 404

"""


def documented():
    """Return the snippet and the command of the page."""
    page = (ROOT / "docs/api.md").read_text()
    section = page[page.index("## In your own application") : page.index("## Errors")]
    snippet, command = re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.MULTILINE)
    return textwrap.dedent(snippet), command.split()


class Existing:
    """The application, and requests to it."""

    def __init__(self, processes, folder, environ):
        snippet, self._command = documented()
        (folder / "existing.py").write_text(EXISTING + snippet)
        self._folder, self._processes, self.state = folder, processes, Path(environ["MEMPRESSURE_STATE_DIR"])
        self.port = free_port()

    def start(self):
        options = ["--chdir", str(self._folder), "--bind", f"127.0.0.1:{self.port}", "--no-control-socket"]
        assert self._command[0] == "gunicorn"
        command = [sys.executable, "-m", *self._command[:-1], *options, self._command[-1]]
        self.process = self._processes.start("existing", command)
        self.process.wait_until(self.answers, seconds=30)

    def answers(self):
        try:
            return self.request("GET", "/theirs")[0] == 200
        except OSError:
            return False

    def request(self, method, path, body=None, *, token=False, **headers):
        if token:
            headers["Authorization"] = "Bearer " + (self.state / "token").read_text().strip()
        if body is not None and not headers.get("Transfer-Encoding"):
            headers["Content-Type"] = "application/json"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, body, headers, encode_chunked="Transfer-Encoding" in headers)
            response = connection.getresponse()
            data = response.read().decode()
        return response.status, response.headers, json.loads(data) if data.startswith("{") else data


@pytest.fixture
def existing(tmp_path, runtime_dir):
    environ = {
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in (".", "exporter", "actuator")),
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(tmp_path / "state"),
    }
    with Processes(logs=tmp_path / "logs", environ=environ) as processes:
        yield Existing(processes, tmp_path, environ)


def test_an_existing_application_mounts_it_under_gunicorn(existing):
    existing.start()
    assert existing.request("GET", "/theirs")[2] == "theirs"
    assert existing.request("GET", "/nowhere")[::2] == (404, "their own 404")

    assert existing.request("GET", f"{MEMORY}/system-info")[0] == 401
    status, _, content = existing.request("GET", f"{MEMORY}/pressure-summary", token=True)
    assert (status, content["status"]) == (200, "success")
    assert content["data"]["system_memory"]["total"] > 0

    thresholds = {"warning": 0.5, "unload_packages": 0.7, "aggressive_unload": 0.8, "emergency": 0.97}
    status, _, content = existing.request("POST", f"{MEMORY}/pressure-thresholds", json.dumps(thresholds), token=True)
    assert (status, content["data"]["thresholds"]) == (200, thresholds)

    for method, path, wanted, code in (
        ("GET", "/api/packages/nowhere", 404, "not_found"),
        ("GET", "/api/packages/", 404, "not_found"),
        ("PUT", "/api/packages/a/b/preference", 404, "not_found"),
        ("DELETE", "/api/packages", 405, "method_not_allowed"),
        ("GET", f"{MEMORY}/gc", 405, "method_not_allowed"),
        ("POST", "/api/packages/none/unload", 404, "unknown_package"),
    ):
        status, headers, content = existing.request(method, path, token=True)
        assert (status, content["error"]["code"]) == (wanted, code), path
        assert ("Allow" in headers) == (wanted == 405)
    # The application sets no limit of its own, and this body does not say how long it is.
    chunks = [b" " * 65536] * 16 + [b" "]  # one byte too many: what is not read could take the answer with it
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    status, _, content = existing.request("POST", f"{MEMORY}/pressure-thresholds", chunks, token=True, **headers)
    assert (status, content["error"]["code"]) == (413, "too_large")

    description = existing.request("GET", "/api/openapi.json", token=True)[2]
    assert set(description["paths"]) == {endpoint.path for endpoint in ENDPOINTS}

    until((existing.state / "actuator.sqlite").exists, "the store")
    assert existing.process.stop() == 0
    existing.start()  # the lock on the state directory is free again, and what was set holds
    assert json.loads((existing.state / "settings.json").read_text())["thresholds"] == thresholds
    assert existing.request("GET", f"{MEMORY}/pressure-summary", token=True)[0] == 200
