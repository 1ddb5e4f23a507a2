"""The actuator as the process that people run, for the tests that ask it over HTTP."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing

from tests.support.waiting import until

DEADLINE = 20.0


class Actuator:
    """An actuator that is started on these directories."""

    def __init__(self, runtime, state, log):
        self.runtime, self.state_dir, self.log = runtime, state, log
        self.process = None
        self.address = None

    def _environ(self, environment):
        settings = {
            "MEMPRESSURE_RUNTIME_DIR": str(self.runtime),
            "MEMPRESSURE_STATE_DIR": str(self.state_dir),
            "MEMPRESSURE_NODE": "n1",
            "MEMPRESSURE_HEARTBEAT_INTERVAL": "3600",
            # What this machine itself uses must not matter.
            "LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD": "0.8",
        } | environment
        return os.environ | settings

    def run(self, *flags, **environment):
        """Run the command to its end; return what it was."""
        command = [sys.executable, "-m", "mempressure_actuator", *flags]
        environ = self._environ(environment)
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=DEADLINE, check=False)

    def start(self, *flags, **environment):
        command = [sys.executable, "-m", "mempressure_actuator", "--web.listen-address=127.0.0.1:0", *flags]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=self._environ(environment), stdout=log, stderr=log)
        seen = len(re.findall("listening: address=", self.text())) if self.address else 0
        found = until(
            lambda: (
                self.process.poll() is not None or re.findall(r"listening: address=([\d.]+:\d+)", self.text())[seen:]
            ),
            "the address",
            seconds=DEADLINE,
        )
        assert self.process.poll() is None, self.text()
        self.address = found[0]

    def text(self):
        return self.log.read_text()

    def token(self):
        return (self.state_dir / "token").read_text().strip()

    def request(self, method, path, body=None, *, token="", headers=None):
        """Return (status, headers, content); the right token unless another is given or it is None."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token or self.token()}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        with closing(http.client.HTTPConnection(self.address, timeout=DEADLINE)) as connection:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            data = response.read()
        is_json = response.headers.get("Content-Type") == "application/json"
        return response.status, response.headers, json.loads(data) if is_json else data.decode()

    def metric(self, name):
        _, _, text = self.request("GET", "/metrics")
        found = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[0]) if found else None

    def history(self):
        return self.request("GET", "/api/packages/memory/history")[2]["data"]["cycles"]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGKILL)
