"""What the end-to-end tests share: the engines, and a place where Slack would be."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stack.engines import EnginesMissingError, find_engines


@pytest.fixture(scope="session")
def engines():
    try:
        return find_engines()
    except EnginesMissingError as error:
        pytest.fail(str(error))


@pytest.fixture
def slack(tmp_path):
    """A server in place of Slack's webhook address, which records the messages; `slack.file` names its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.messages.append(json.loads(body))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.messages = []
    server.file = tmp_path / "slack_url"
    server.file.write_text(f"http://127.0.0.1:{server.server_address[1]}/services/hook")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
