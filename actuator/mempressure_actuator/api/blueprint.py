"""The JSON API, a blueprint that an existing Flask application can mount. docs/api.md describes every endpoint."""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule

from mempressure.errors import ConfigurationError, MempressureError, UnknownPackageError
from mempressure.measure.pressure import MeasureError
from mempressure_actuator import schemas
from mempressure_actuator.actuator import Actuator
from mempressure_actuator.api.access import Access
from mempressure_actuator.api.answers import (
    HTTP_CODES,
    RequestError,
    body_bytes,
    failure,
    http_failure,
    internal_failure,
    json_answer,
    json_body,
    success,
)
from mempressure_actuator.api.endpoint import Endpoint
from mempressure_actuator.api.operations import Operations
from mempressure_actuator.api.routes import ENDPOINTS
from mempressure_actuator.loop.requests import WorkersBusyError
from mempressure_actuator.store.owned_database import StoreError

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def create_blueprint(
    actuator: Actuator,
    *,
    access: Access,
    name: str = "mempressure",
    beside: Iterable[Endpoint] = (),
) -> Blueprint:
    """Return the API below `/api`, to be mounted in a Flask application.

    Args:
        actuator: started and stopped by the caller.
        access: which requests are allowed; `Access(token)` in an application without rules of its own.
        name: of the blueprint.
        beside: further endpoints of the application to include in the OpenAPI description.
    """
    blueprint = Blueprint(name, __name__)
    blueprint.before_request(access.check)
    blueprint.register_error_handler(RequestError, failure)
    blueprint.register_error_handler(MempressureError, _refused)
    # By status too: the application's handler of a status takes precedence over ours of the class.
    blueprint.register_error_handler(HTTPException, http_failure)
    for status in HTTP_CODES:
        blueprint.register_error_handler(status, http_failure)
    blueprint.register_error_handler(Exception, internal_failure)
    api = Operations(actuator, described=(*ENDPOINTS, *beside))
    for endpoint in ENDPOINTS:
        blueprint.add_url_rule(endpoint.rule, endpoint.name, _view(api, endpoint), methods=[endpoint.method])
    # In another application, only paths below these get this API's kind of error.
    for rule in ("/api/packages/", "/api/packages/<path:rest>"):
        blueprint.add_url_rule(rule, "unknown", _unknown, methods=_METHODS, strict_slashes=False)
    return blueprint


def _view(api: Operations, endpoint: Endpoint) -> Callable[..., Response]:
    def view(**arguments: Any) -> Response:
        if endpoint.body and (endpoint.body_required or body_bytes()):
            arguments["body"] = json_body(endpoint.body)
        answer = endpoint.act(api, **arguments)
        return json_answer(answer) if endpoint.answer is schemas.OpenAPI else success(answer)

    return view


def _unknown(rest: str = "") -> NoReturn:
    rules = Map([Rule(endpoint.rule, methods=[endpoint.method]) for endpoint in ENDPOINTS])
    path = f"/api/packages/{rest}" if rest else "/api/packages"
    allowed = set(rules.bind("localhost").allowed_methods(path))
    raise MethodNotAllowed(valid_methods=allowed) if allowed and request.method not in allowed else NotFound


def _refused(error: MempressureError) -> Response:
    """Return the answer to an error of the library, by its class."""
    for kind, code in (
        (ConfigurationError, "bad_request"),
        (UnknownPackageError, "unknown_package"),
        (WorkersBusyError, "busy"),
        (MeasureError, "not_measured"),
        (StoreError, "not_read"),
    ):
        if isinstance(error, kind):
            headers = {"Retry-After": "5"} if kind is WorkersBusyError else None
            return failure(RequestError(code, str(error), headers=headers))
    return internal_failure(error)
