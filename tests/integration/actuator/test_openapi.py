"""The description at /api/openapi.json is true: whatever it allows, and what it does not, is answered as it says."""

import json
import os
from dataclasses import dataclass
from types import SimpleNamespace
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mempressure.config.configuration import load_configuration
from mempressure.state.files import publish
from mempressure.state.records import PackageState, WorkerState
from mempressure_actuator.actuator import Actuator
from mempressure_actuator.api.access import Access
from mempressure_actuator.api.routes import ENDPOINTS
from mempressure_actuator.api.token import load_token
from mempressure_actuator.application import PAGES, create_app
from mempressure_actuator.inbox.webhook import ENDPOINT
from tests.support.builders.proc_tree import NAMESPACE, FixtureProc

MIB = 1 << 20
# The same cases each time: with others, Hypothesis says once in some thousand that a case was not drawn as before, of
# `spoiled` values, for a reason that is not known yet. No such run had an answer that was not described.
EXAMPLES = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


BEYOND_SCHEMAS = (
    "must be above",
    "is out of range",
    "too close to the hysteresis",
    "printable",
    "has no label",
    "has scope=",
    "has level=",
)
"""Why what a schema allows may be refused: the order of thresholds, and what a name or a label's value is."""


# From a JSON Schema to values that it allows


def values(schema, root):
    """Return a strategy of values that `schema` allows; a keyword that is not known here is an error."""
    if "$ref" in schema:
        return values(root["components"]["schemas"][schema["$ref"].rpartition("/")[2]], root)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of(*(values(each, root) for each in schema["anyOf"]))
    return TYPES[schema["type"]](schema, root)


def numbers(schema, _root):
    return st.floats(
        schema.get("exclusiveMinimum", schema.get("minimum")),
        schema.get("maximum"),
        exclude_min="exclusiveMinimum" in schema,
        allow_nan=False,
        allow_infinity=False,
    )


def texts(schema, _root):
    if schema.get("format") == "date-time":
        return st.datetimes().map(lambda when: when.strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20))
    length = {"min_size": schema.get("minLength", 0), "max_size": schema.get("maxLength")}
    excluded = "/" if schema.get("pattern") == "^[^/]+$" else ""
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters=excluded), **length)


def objects(schema, root):
    known = {name: values(each, root) for name, each in schema.get("properties", {}).items()}
    required = {name: known[name] for name in schema.get("required", ())}
    optional = {name: each for name, each in known.items() if name not in required}
    fixed = st.fixed_dictionaries(required, optional=optional)
    free = schema.get("additionalProperties")
    if isinstance(free, dict):
        names = texts(schema.get("propertyNames", {}), root)
        return st.dictionaries(names, values(free, root), max_size=min(5, schema.get("maxProperties", 5)))
    return fixed


TYPES = {
    "boolean": lambda _schema, _root: st.booleans(),
    "null": lambda _schema, _root: st.none(),
    "number": numbers,
    "integer": lambda schema, _root: st.integers(schema.get("minimum"), schema.get("maximum")),
    "string": texts,
    "array": lambda schema, root: st.lists(
        values(schema["items"], root), min_size=schema.get("minItems", 0), max_size=max(3, schema.get("minItems", 0))
    ),
    "object": objects,
}
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"]))


def nested(inner):
    return inner | st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)


ANY_JSON = nested(nested(SCALARS))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@st.composite
def spoiled(draw, good):
    """Draw what is nearly good: a field changed, left out, or one too many; or anything at all."""
    value = draw(good)
    how = draw(st.sampled_from(["changed", "left out", "too many", "anything"]))
    if how == "anything" or not isinstance(value, dict) or (how != "too many" and not value):
        return draw(ANY_JSON)
    if how == "left out":
        gone = draw(st.sampled_from(sorted(value)))
        return {name: value[name] for name in value if name != gone}
    name = draw(st.text(max_size=5) if how == "too many" else st.sampled_from(sorted(value)))
    return value | {name: draw(ANY_JSON)}


# What is served, and by whom


@dataclass(frozen=True)
class Operation:
    """One method of one path of the description."""

    method: str
    path: str
    content: dict

    def parameters(self, place):
        return [each for each in self.content.get("parameters", ()) if each["in"] == place]

    @property
    def body(self):
        return self.content.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")

    def __str__(self):
        return f"{self.method} {self.path}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An actuator with two workers of the app "shop", which answer no order, at 75 % of memory."""
    folder = tmp_path_factory.mktemp("openapi")
    proc = FixtureProc(folder / "proc")
    proc.meminfo(MemAvailable=2 << 20)
    workers = folder / "runtime" / str(os.geteuid())
    for directory in (workers.parent, workers, folder / "state"):
        directory.mkdir(mode=0o755)
    options = {"mechanism": "stop", "source": "process", "timeout": 60.0, "loaded": 1.0, "memory_bytes": 300.0 * MIB}
    for pid in (101, 102):
        proc.process(pid, start_ticks=1000)
        worker = WorkerState(
            app="shop",
            pid=pid,
            start_ticks=1000,
            pid_namespace=NAMESPACE,
            started=1e9,
            sampled=1e9,
            budget_bytes=100 * MIB,
            proportional_bytes=43.0 * MIB,
            packages=[PackageState(name="pandas", **options), PackageState(name="sympy", **options | {"loaded": 0.0})],
        )
        publish(worker, workers / f"{pid}.state")
    environ = {
        "MEMPRESSURE_RUNTIME_DIR": str(folder / "runtime"),
        "MEMPRESSURE_STATE_DIR": str(folder / "state"),
        "MEMPRESSURE_NODE": "n1",
    }
    actuator = Actuator(load_configuration(environ=environ), proc=proc.path)
    token = load_token(folder / "state/token")
    client = create_app(actuator, access=Access(token, host="127.0.0.1")).test_client()
    auth = {"Authorization": "Bearer " + (folder / "state/token").read_text().strip()}
    yield SimpleNamespace(actuator=actuator, client=client, auth=auth, proc=proc, folder=folder)
    actuator.stop()


@pytest.fixture(scope="module")
def description(server):
    return server.client.get("/api/openapi.json").get_json()


@pytest.fixture(scope="module")
def operations(description):
    return [
        Operation(method.upper(), path, content)
        for path, methods in description["paths"].items()
        for method, content in methods.items()
    ]


def closed(schema):
    """Return `schema` with every object taking the properties that it names and no other."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(each) for key, each in schema.items()}
    return inner | ({"additionalProperties": False} if "properties" in schema else {})


def assert_described(operation, description, response):
    """Check that an answer is one that the description has: status, content type, and every field."""
    answers = operation.content["responses"]
    assert response.status_code != 500, response.text
    assert str(response.status_code) in answers, (str(operation), response.status_code, response.text)
    content = answers[str(response.status_code)]["content"]
    assert response.mimetype in content, (str(operation), response.mimetype)
    if response.mimetype == "application/json":
        whole = {"allOf": [content["application/json"]["schema"]], "components": description["components"]}
        Draft202012Validator(closed(whole)).validate(response.get_json())


def request(server, operation, parameters, query, **options):
    path = operation.path.format(**{name: quote(value, safe="") for name, value in parameters.items()})
    return server.client.open(
        f"{path}?{urlencode(query)}" if query else path, method=operation.method, headers=server.auth, **options
    )


def drawn(draw, operation, description, place):
    return {
        each["name"]: str(draw(values(each["schema"], description)))
        for each in operation.parameters(place)
        if each["required"] or draw(st.booleans())
    }


def test_it_is_a_description(description, operations):
    assert description["openapi"] == "3.1.0"
    served = [*ENDPOINTS, ENDPOINT, *PAGES]
    assert {str(operation) for operation in operations} == {f"{each.method} {each.path}" for each in served}
    assert len({operation.content["operationId"] for operation in operations}) == len(served)
    for operation in operations:
        named = {each["name"] for each in operation.parameters("path")}
        assert named == {part[1:-1] for part in operation.path.split("/") if part.startswith("{")}
        for answer in operation.content["responses"].values():
            for content in answer["content"].values():
                Draft202012Validator.check_schema(content["schema"])
    for schema in description["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_examples_are_what_it_allows(server, description, operations):
    for operation in operations:
        if operation.body:
            example = operation.content["requestBody"]["content"]["application/json"]["example"]
            whole = {"allOf": [operation.body], "components": description["components"]}
            Draft202012Validator(whole).validate(example)
            parameters = {each["name"]: "pandas" for each in operation.parameters("path")}
            response = request(server, operation, parameters, {}, json=example)
            assert response.status_code in (200, 202), response.text


@EXAMPLES
@given(data=st.data())
def test_what_it_allows_is_taken(server, description, operations, data):
    operation = data.draw(st.sampled_from(operations), label="operation")
    parameters = drawn(data.draw, operation, description, "path")
    query = drawn(data.draw, operation, description, "query")
    options = {}
    if operation.body and (operation.content["requestBody"]["required"] or data.draw(st.booleans())):
        options["json"] = data.draw(values(operation.body, description), label="body")
    response = request(server, operation, parameters, query, **options)
    assert_described(operation, description, response)
    if response.status_code == 400:  # what a schema cannot say
        message = response.get_json()["error"]["message"]
        assert any(reason in message for reason in BEYOND_SCHEMAS), message


@EXAMPLES
@given(data=st.data())
def test_what_it_does_not_allow_is_refused(server, description, operations, data):
    operation = data.draw(st.sampled_from([each for each in operations if each.body]), label="operation")
    body = data.draw(spoiled(values(operation.body, description)), label="body")
    parameters = drawn(data.draw, operation, description, "path")
    stored = server.folder / "state/settings.json"
    before = stored.read_bytes() if stored.exists() else b""
    text = json.dumps(body)
    response = request(server, operation, parameters, {}, data=text, content_type="application/json")
    assert_described(operation, description, response)
    whole = {"allOf": [operation.body], "components": description["components"]}
    if not Draft202012Validator(whole).is_valid(body) or "NaN" in text or "Infinity" in text:
        assert response.status_code == 400, response.text
        assert "send" in response.get_json()["error"]["message"]
        assert (stored.read_bytes() if stored.exists() else b"") == before


UTF_16 = ANY_JSON.map(lambda value: json.dumps(value).encode("utf-16"))
NO_UTF_8 = st.sampled_from(["app", "status", "warning", "version"]).map(lambda name: b'{"%s": "\xff"}' % name.encode())


@st.composite
def anything(draw):
    """Draw a method, a content type and bytes, as from a client that ignores the description."""
    kinds = ["application/json", "text/plain", "application/json; charset=latin-1", "multipart/form-data", None]
    return {
        "method": draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])),
        "content_type": draw(st.sampled_from(kinds)),
        "data": draw(st.binary(max_size=60) | UTF_16 | NO_UTF_8),
    }


@EXAMPLES
@given(data=st.data(), sent=anything(), more=st.just("") | TEXT)
def test_whatever_else_is_sent_is_answered_in_order(server, description, operations, data, sent, more):
    operation = data.draw(st.sampled_from(operations), label="operation")
    named = {each["name"]: data.draw(TEXT, label="value") for each in operation.parameters("path")}
    path = operation.path.format(**{name: quote(value, safe="") for name, value in named.items()}) + quote(more)
    response = server.client.open(path, headers=server.auth, **sent)
    if sent["method"] == operation.method and not more and not any("/" in value for value in named.values()):
        assert_described(operation, description, response)
    assert response.status_code < 500 or operation.path == "/-/ready", response.text
    if response.status_code >= 400 and sent["method"] != "HEAD" and response.status_code != 503:
        assert set(response.get_json()["error"]) == {"code", "message"}
        assert ("Allow" in response.headers) == (response.status_code == 405)


def test_what_goes_wrong_here_is_described_too(server, description, operations, monkeypatch):
    """A host that cannot be measured, a disk that takes nothing, and one that gives nothing."""

    def full(_change):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server.actuator.settings._file, "update", full)
    (server.proc.root / "meminfo").unlink()
    server.actuator.store._database._writer.execute("DROP TABLE cycles")
    codes = {}
    for operation in operations:
        named = operation.parameters("path")
        parameters = {each["name"]: each["schema"].get("enum", ["pandas"])[0] for each in named}
        body = operation.body and operation.content["requestBody"]["content"]["application/json"]["example"]
        response = request(server, operation, parameters, {}, **({"json": body} if body else {}))
        assert_described(operation, description, response)
        if response.status_code == 503 and response.is_json:
            codes.setdefault(response.get_json()["error"]["code"], set()).add(str(operation))
    provoked = ("not_measured", "not_stored", "not_read")
    assert codes == {
        code: {f"{each.method} {each.path}" for each in ENDPOINTS if code in each.errors} for code in provoked
    }
