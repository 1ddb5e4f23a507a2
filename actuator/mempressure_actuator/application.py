"""The Flask application: the webhook, the API, the metrics and the health pages."""

import html
import logging

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from mempressure_actuator import api, webhook
from mempressure_actuator.access import guard, guard_host, is_loopback
from mempressure_actuator.actuator import Actuator
from mempressure_actuator.answers import MAX_BODY_BYTES, RequestError, failure, http_failure
from mempressure_actuator.token import Token

_log = logging.getLogger(__name__)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>mempressure actuator</title></head>
<body>
<h1>mempressure actuator</h1>
<p>Gives the memory of idle packages back on {node}.</p>
<ul>
<li><a href="/api/packages">Apps, workers and packages</a></li>
<li><a href="/api/packages/memory/pressure-summary">Memory pressure</a></li>
<li><a href="/api/packages/memory/history">What was done</a></li>
<li><a href="/metrics">Metrics</a></li>
<li><a href="/-/healthy">Healthy</a>, <a href="/-/ready">ready</a></li>
</ul>
</body>
</html>
"""


def create_app(actuator: Actuator, *, token: Token, host: str = "127.0.0.1") -> Flask:
    """Return the application.

    Args:
        actuator: what it speaks for; started and stopped by the caller.
        token: what requests that change something must show.
        host: where the server listens; beyond loopback every request must show the token.
    """
    app = Flask("mempressure_actuator", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    if is_loopback(host):
        app.before_request(guard_host(host))
    else:
        app.before_request(guard(token, reads_need_token=True))
    app.register_error_handler(RequestError, failure)
    app.register_error_handler(HTTPException, http_failure)
    app.register_error_handler(Exception, _failed)
    app.register_blueprint(webhook.create_blueprint(actuator, token=token))
    app.register_blueprint(api.create_blueprint(actuator, token=token, reads_need_token=not is_loopback(host)))
    _add_pages(app, actuator)
    return app


def _add_pages(app: Flask, actuator: Actuator) -> None:
    @app.get("/metrics")
    def metrics() -> Response:
        body, content_type = actuator.metrics.exposition(request.headers.get("Accept", ""))
        return Response(body, content_type=content_type)

    @app.get("/-/healthy")
    def healthy() -> Response:
        return Response("healthy\n", mimetype="text/plain")

    @app.get("/-/ready")
    def ready() -> Response:
        if actuator.loop.alive and not actuator.stopping.is_set():
            return Response("ready\n", mimetype="text/plain")
        return Response("the control loop does not run\n", status=503, mimetype="text/plain")

    @app.get("/")
    def landing() -> Response:
        return Response(_PAGE.format(node=html.escape(actuator.node)), mimetype="text/html")


def _failed(error: Exception) -> Response:
    _log.error("request failed: method=%s path=%s", request.method, request.path, exc_info=error)
    return failure(RequestError(500, "internal_error", "the request failed; the actuator's log says why"))
