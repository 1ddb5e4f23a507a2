"""Makes the OpenAPI 3.1 description from the endpoints and their types."""

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec

from mempressure import __version__
from mempressure_actuator.api.endpoint import ERRORS, Endpoint
from mempressure_actuator.schemas import OpenAPI

_TOKEN = "token"  # noqa: S105 -- the name of the scheme


def describe(endpoints: Iterable[Endpoint], *, server: str = "/") -> OpenAPI:
    """Return the description of `endpoints`.

    Args:
        endpoints: those that are served.
        server: the path that they are below.
    """
    endpoints = tuple(endpoints)
    bodies = list(dict.fromkeys(endpoint.body for endpoint in endpoints if endpoint.body))
    answers = list(dict.fromkeys(endpoint.answer for endpoint in endpoints if endpoint.answer))
    references, schemas = msgspec.json.schema_components(
        [*bodies, *answers], ref_template="#/components/schemas/{name}"
    )
    known = dict(zip([*bodies, *answers], references, strict=True))
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mempressure actuator",
            "version": __version__,
            "description": "Memory pressure on one machine, and unloading. Times are Unix seconds, sizes bytes; "
            "usage_percent is a ratio from 0 to 1, percent and swap_percent go from 0 to 100. Fields may be added.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {_TOKEN: {"type": "http", "scheme": "bearer"}}},
    }


def _operation(endpoint: Endpoint, known: dict[Any, Any]) -> dict[str, Any]:
    summary, _, rest = (inspect.getdoc(endpoint.act) or "").partition("\n")
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": summary,
        "security": [{_TOKEN: []}] if endpoint.changes else [{}, {_TOKEN: []}],
        "responses": _responses(endpoint, known),
    }
    if rest.strip():
        operation["description"] = " ".join(rest.split())
    if endpoint.parameters or endpoint.query:
        operation["parameters"] = [
            *(_parameter(name, kind, "path") for name, kind in endpoint.parameters.items()),
            *(_parameter(name, kind, "query") for name, kind in endpoint.query.items()),
        ]
    if endpoint.body:
        content = {"schema": known[endpoint.body], "example": endpoint.body.EXAMPLE}
        operation["requestBody"] = {"required": endpoint.body_required, "content": {"application/json": content}}
    return operation


def _parameter(name: str, kind: Any, place: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": msgspec.json.schema(kind)}


def _responses(endpoint: Endpoint, known: dict[Any, Any]) -> dict[str, Any]:
    schema = _success(known[endpoint.answer]) if endpoint.answer else {"type": "string"}
    if endpoint.answer is OpenAPI:  # programs expect the description itself, not within `data`
        schema = known[OpenAPI]
    answer = {"content": {page: {"schema": schema} for page in endpoint.pages}}
    responses: dict[str, Any] = {str(status): {"description": "Done.", **answer} for status in endpoint.statuses}
    codes: dict[int, list[str]] = {}
    for code in endpoint.codes:
        codes.setdefault(ERRORS[code][0], []).append(code)
    for status, of_status in sorted(codes.items()):
        # A page can answer a status, such as 503, both with its own content and with an error.
        pages = responses.get(str(status), {}).get("content", {})
        responses[str(status)] = {
            "description": " ".join(ERRORS[code][1] for code in of_status),
            "content": pages | {"application/json": {"schema": _failure(of_status)}},
        }
    return responses


def _success(data: Any) -> dict[str, Any]:
    return _object(status={"const": "success"}, data=data)


def _failure(codes: list[str]) -> dict[str, Any]:
    return _object(status={"const": "error"}, error=_object(code={"enum": codes}, message={"type": "string"}))


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
