"""What people read when a body cannot be used: the field, its value, and what to send."""

import pytest
from flask import Flask

from mempressure_actuator.api.answers import RequestError, json_body
from mempressure_actuator.api.endpoint import ERRORS
from mempressure_actuator.schemas import PreferenceBody, ThresholdsBody, UnloadBody

PREFERENCE = 'send, for example, {"app":"shop","keep_loaded":true}, where app may be left out'


def refused(body, kind, content_type="application/json"):
    with (
        Flask(__name__).test_request_context(data=body, content_type=content_type),
        pytest.raises(RequestError) as info,
    ):
        json_body(kind)
    return str(info.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{}", "keep_loaded is missing"),
        (b'{"keep_loaded": 1}', "keep_loaded=1 cannot be used: expected true or false, got a whole number"),
        (b'{"keep_loaded": "no"}', 'keep_loaded="no" cannot be used: expected true or false, got text'),
        (b'{"keep_loaded": null}', "keep_loaded=null cannot be used: expected true or false, got null"),
        (b'{"keep_loaded": true, "app": 5}', "app=5 cannot be used: expected text, got a whole number"),
        (b'{"keep_loaded": true, "x": 5}', "x is unknown"),
        (b'{"keep_loaded": true, "it`s": 5}', "it`s is unknown"),
        (b"[]", "the body cannot be used: expected an object, got an array"),
        (b"5", "the body cannot be used: expected an object, got a whole number"),
    ],
)
def test_a_field_is_named_with_its_value_and_what_to_send(body, said):
    assert refused(body, PreferenceBody) == f"{said}; {PREFERENCE}"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"app": "\xff"}', b'{"keep_loaded": NaN}', b'"\\ud800"', b"[" * 99999]
)
def test_a_body_that_is_not_json_is_reported(body):
    message = refused(body, PreferenceBody)
    assert message.startswith("the body is not JSON in UTF-8, ")
    assert message.endswith(PREFERENCE)


def test_a_long_value_is_cut():
    message = refused(b'{"keep_loaded": "' + b"x" * 5000 + b'"}', PreferenceBody)
    assert 'keep_loaded="' + "x" * 59 + " cannot be used" in message


def test_the_range_of_thresholds_is_in_the_message():
    body = b'{"warning": 0.6, "unload_packages": 0.8, "aggressive_unload": 0.85, "emergency": 1.5}'
    assert refused(body, ThresholdsBody).startswith(
        "emergency=1.5 cannot be used: expected a number <= 1.0; send, for example, {"
    )


def test_another_content_type_is_named():
    assert "'text/plain' is not understood; send application/json" in refused(b"{}", UnloadBody, "text/plain")
    assert "'missing' is not understood" in refused(b"{}", UnloadBody, None)


def test_every_code_has_its_status():
    for code, (status, meaning) in ERRORS.items():
        assert RequestError(code, "x").status == status
        assert 400 <= status < 600
        assert meaning.endswith(".")
