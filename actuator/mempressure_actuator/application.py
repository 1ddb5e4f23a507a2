"""The Flask application: the webhook, the API, the status page, the metrics and the health checks."""

from functools import partial

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from mempressure_actuator.actuator import Actuator
from mempressure_actuator.api import blueprint as api
from mempressure_actuator.api.access import Access
from mempressure_actuator.api.answers import MAX_BODY_BYTES, RequestError, failure, http_failure, internal_failure
from mempressure_actuator.api.endpoint import Endpoint
from mempressure_actuator.inbox import webhook
from mempressure_actuator.page.blueprint import StatusPage
from mempressure_actuator.page.blueprint import create_blueprint as create_page


def create_app(actuator: Actuator, *, access: Access) -> Flask:
    """Return the application.

    Args:
        actuator: started and stopped by the caller.
        access: which requests are allowed.
    """
    app = Flask("mempressure_actuator", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    # The blueprints check access themselves: the page must let people sign in.
    app.before_request(lambda: None if request.blueprint else access.check())
    app.register_error_handler(RequestError, failure)
    app.register_error_handler(HTTPException, http_failure)
    app.register_error_handler(Exception, internal_failure)
    app.register_blueprint(webhook.create_blueprint(actuator, access=access))
    app.register_blueprint(api.create_blueprint(actuator, access=access, beside=(webhook.ENDPOINT, *PAGES)))
    app.register_blueprint(create_page(actuator, access=access))
    pages = _Pages(actuator)
    for page in PAGES[1:]:
        app.add_url_rule(page.rule, page.name, partial(page.act, pages), methods=[page.method])
    return app


class _Pages:
    """The handlers of `PAGES`; each docstring is the description in OpenAPI."""

    def __init__(self, actuator: Actuator) -> None:
        self._actuator = actuator

    def metrics(self) -> Response:
        """Return the metrics, in Prometheus' text format, or OpenMetrics if requested."""
        body, content_type = self._actuator.metrics.exposition(request.headers.get("Accept", ""))
        return Response(body, content_type=content_type)

    def healthy(self) -> Response:
        """Return 200 while the process serves."""
        return Response("healthy\n", mimetype="text/plain")

    def ready(self) -> Response:
        """Return 200 while the control loop runs, else 503."""
        if self._actuator.loop.alive and not self._actuator.stopping.is_set():
            return Response("ready\n", mimetype="text/plain")
        return Response("the control loop does not run\n", status=503, mimetype="text/plain")


_TEXT = ("text/plain",)

PAGES = (
    Endpoint(method="GET", path="/", act=StatusPage.status_page, pages=("text/html",), statuses=(200, 503)),
    Endpoint(method="GET", path="/metrics", act=_Pages.metrics, pages=(*_TEXT, "application/openmetrics-text")),
    Endpoint(method="GET", path="/-/healthy", act=_Pages.healthy, pages=_TEXT),
    Endpoint(method="GET", path="/-/ready", act=_Pages.ready, pages=_TEXT, statuses=(200, 503)),
)
"""The endpoints that are neither the API nor the webhook."""
