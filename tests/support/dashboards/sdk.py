"""A dashboard read with Grafana's own model, the package grafana-foundation-sdk.

The model hardly validates: what it does not know it drops, and it takes a value of any type. So what it lost is found
by writing it again, and the types by its own annotations.
"""

import enum
import functools
import json
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

NOT_MODELLED = re.compile(r"\.annotations\.list\[\d+\]\.(step|titleFormat|textFormat|tagKeys)")
"""Keys of an annotation's query that Grafana's Prometheus data source reads and the model does not know."""

NOT_TYPED = re.compile(r".*\.transformations\[\d+\]")
"""The model declares an object there and keeps the dictionary that it read."""

register_default_plugins()


def problems(dashboard: dict[str, Any]) -> list[str]:
    """Return what the model loses, changes, or finds of the wrong type."""
    try:
        model = Dashboard.from_json(dashboard)
        written = json.loads(json.dumps(model, cls=JSONEncoder))
    except Exception as error:  # noqa: BLE001 -- it raises whatever it stumbles upon; each is a problem of the file
        return [f"cannot be read: {type(error).__name__}: {error}"]
    lost = [path for path in _differences(dashboard, written, "") if not NOT_MODELLED.fullmatch(path)]
    wrong = [path for path in _of_wrong_type(model, type(model), "") if not NOT_TYPED.fullmatch(path)]
    return [f"lost: {path}" for path in lost] + [f"type: {path}" for path in wrong]


def _differences(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from _differences(value, after[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from _differences(left, right, f"{path}[{place}]")
    elif before != after:
        yield path


def _of_wrong_type(value: Any, hint: Any, path: str) -> list[str]:
    """Return the paths of values that are not what the annotations say."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [each for each in arguments if (each is type(None)) == (value is None)]
        same = [each for each in kinds if type(value) is each]  # of several models the one that was chosen
        return min((_of_wrong_type(value, each, path) for each in same or kinds), key=len, default=[path])
    if origin in (list, dict) and isinstance(value, origin):
        children = value.items() if origin is dict else enumerate(value)
        return [bad for key, each in children for bad in _of_wrong_type(each, arguments[-1], f"{path}[{key}]")]
    if origin is typing.Literal:
        return [] if value in arguments else [path]
    if hasattr(value, "to_json"):
        return _in_object(value, hint, path)
    return [] if origin is None and _is(value, hint) else [path]


@functools.cache
def _hints(model: type) -> dict[str, Any]:
    return typing.get_type_hints(model)


def _in_object(value: Any, hint: Any, path: str) -> list[str]:
    if hint not in (object, Any) and not (isinstance(hint, type) and isinstance(value, hint)):
        return [path]
    return [
        bad
        for name, each in _hints(type(value)).items()
        if hasattr(value, name)
        for bad in _of_wrong_type(getattr(value, name), each, f"{path}.{name}")
    ]


def _is(value: Any, hint: Any) -> bool:
    if hint in (object, Any):
        return True
    if hint in (None, type(None)):
        return value is None
    if issubclass(hint, enum.Enum):
        return value in [member.value for member in hint]
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)
