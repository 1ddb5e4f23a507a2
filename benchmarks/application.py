"""The application that the benchmarks run under gunicorn: plain WSGI, so that a package is all that a worker loads.

`BENCHMARK_ISOLATED` names packages, with commas between, that live in processes of their own; the others live in the
worker. `/run/PACKAGE` puts one to use, `/algebra/N` has a module that imports sympy at its top, `/naive/PACKAGE`
unloads one as people do who know of `sys.modules` only, `/ping` uses nothing.
"""

import importlib
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.exercises import EXERCISES
from benchmarks.naive import unload
from mempressure import get_lazy_loader

loader = get_lazy_loader()
_recent: dict[str, bytes] = {}
"""A cache such as applications have: dropped under pressure."""


def _declared() -> dict[str, Callable[[], Any]]:
    isolated = os.environ.get("BENCHMARK_ISOLATED", "").split(",")
    functions: dict[str, Callable[[], Any]] = {}
    for exercise in EXERCISES:
        if exercise.package in isolated:
            functions[exercise.package] = loader.isolated(exercise.package)(exercise.run)
        else:
            loader.manage(exercise.package)
            functions[exercise.package] = exercise.run
    return functions


_functions = _declared()


@loader.on_pressure("medium")
def drop_recent(_level: str) -> None:
    """Drop the cache."""
    _recent.clear()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request; what an exercise raises becomes a 500."""
    _, kind, *rest = environ["PATH_INFO"].split("/")
    try:
        body = json.dumps(_answer(kind, rest[0] if rest else "")).encode()
        status = "200 OK"
    except BaseException as error:  # noqa: BLE001 -- an unloaded package may raise anything, and the client is to hear
        body, status = f"{type(error).__name__}: {error}".encode(), "500 Internal Server Error"
    _recent[environ["PATH_INFO"]] = body
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _answer(kind: str, argument: str) -> Any:
    if kind == "ping":
        return "pong"
    if kind == "run":
        return _functions[argument]()
    if kind == "algebra":
        return importlib.import_module("benchmarks.algebra").derivative(int(argument))
    if kind == "naive":
        return unload(argument)
    raise LookupError(f"/{kind}: no such page")
