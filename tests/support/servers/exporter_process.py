"""The exporter as a process of its own, under test."""

import http.client
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
DEADLINE = 20.0
COMMAND = [sys.executable, "-m", "mempressure_exporter"]


def exporter_environment(runtime, state):
    """Return the environment of an exporter on these directories; the node is called n1."""
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'exporter'}",
        "MEMPRESSURE_RUNTIME_DIR": str(runtime),
        "MEMPRESSURE_STATE_DIR": str(state),
        "MEMPRESSURE_NODE": "n1",
    }


class ExporterProcess:
    """A running exporter and its log; ends with the `with` block.

    Args:
        flags: on top of a listen address that the kernel chooses.
        environment: the whole of it.
        log: the file that its log goes to.
    """

    def __init__(self, *flags, environment, log):
        self._log = log
        with open(log, "wb") as stderr:
            self.process = subprocess.Popen(
                [*COMMAND, "--web.listen-address=127.0.0.1:0", *flags], env=environment, stderr=stderr
            )
        ended = lambda: self.process.poll() is not None  # noqa: E731 -- for `until`
        until(lambda: "listening: " in self.log or ended(), "the exporter's start", seconds=DEADLINE)
        self.port = int(re.search(r"listening: address=127\.0\.0\.1:(\d+)", self.log)[1])

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()

    @property
    def log(self):
        return self._log.read_text()

    def get(self, path="/metrics", **headers):
        """Return the status, the content type and the text of one answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.headers["Content-Type"], response.read().decode()
        finally:
            connection.close()

    def samples(self, query=""):
        """Scrape; the value of each series."""
        status, _, text = self.get(f"/metrics{query}")
        assert status == 200, text
        return samples_of(text)

    def connect(self, sends=b""):
        """Return a connection on which something was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        connection.sendall(sends)
        return connection


def samples_of(text):
    """Return the value of each series of a text."""
    pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, _, value in pairs}
