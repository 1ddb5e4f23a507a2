"""The dashboards' files, and what is in them: panels, queries, the variables that they use."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser

DIRECTORY = Path(__file__).resolve().parents[3] / "grafana" / "dashboards"
NAMES = tuple(sorted(path.stem for path in DIRECTORY.glob("*.json")))

RATE_INTERVAL = "4321s"
"""Stands for $__rate_interval where a query is parsed: told apart from every other range."""

_BUILT_IN = {"$__rate_interval": RATE_INTERVAL, "$__interval": "15s", "$__range": "7654s"}
_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)(?:[:.][\w.]+)?\}|\[\[(\w+)\]\]")
_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


def load(name: str) -> dict[str, Any]:
    """Return one dashboard."""
    return json.loads((DIRECTORY / f"{name}.json").read_text())


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every panel, those in rows and the rows too."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def find(dashboard: dict[str, Any], title: str) -> dict[str, Any]:
    """Return the first panel with a title."""
    return next(panel for panel in panels(dashboard) if panel["title"] == title)


def variables(dashboard: dict[str, Any], kind: str | None = None) -> list[dict[str, Any]]:
    """Return the variables, of one type if it is named."""
    return [each for each in dashboard["templating"]["list"] if kind in (None, each["type"])]


def annotations(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is marked on graphs by queries."""
    return [each for each in dashboard["annotations"]["list"] if not each.get("builtIn")]


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and where it stands."""

    where: str
    expr: str
    instant: bool = False
    step: str | None = None


def queries(dashboard: dict[str, Any]) -> Iterator[Query]:
    """Yield the queries of panels and annotations."""
    for panel in panels(dashboard):
        for target in panel.get("targets", ()):
            where = f"{panel['title']} {target['refId']}"
            yield Query(where, target["expr"], target.get("instant", False), target.get("interval"))
    for annotation in annotations(dashboard):
        yield Query(f"annotation {annotation['name']}", annotation["expr"])


def label_values(variable: dict[str, Any]) -> tuple[str, str] | None:
    """Return the selector and the label that a variable's query asks for; None where it asks otherwise."""
    found = _LABEL_VALUES.fullmatch(variable["query"]["query"])
    return (found[1], found[2]) if found else None


def used_variables(text: str) -> set[str]:
    """Return the names of the variables in a text."""
    return {next(name for name in found.groups() if name) for found in _VARIABLE.finditer(text)}


def parsed(expr: str, dashboard: dict[str, Any]) -> Any:
    """Return the syntax tree of a query; variables in quotes stay as they are.

    Raises:
        ValueError: it is no PromQL.
    """
    values = {f"${each['name']}": each["current"]["value"] for each in variables(dashboard, "custom")}
    for name, value in (_BUILT_IN | values).items():
        expr = re.sub(re.escape(name) + r"\b", value, expr)
    return promql_parser.parse(expr)


def walk(node: Any, parents: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield a node of a syntax tree and all below it, each with those above it."""
    yield node, parents
    below = [getattr(node, name, None) for name in ("expr", "param", "lhs", "rhs", "vector_selector")]
    for child in (*below, *getattr(node, "args", ())):
        if child is not None:
            yield from walk(child, (*parents, node))


def metric(selector: Any) -> str:
    """Return the metric of a selector, or the pattern of several."""
    return selector.name or next(each.value for each in selector.matchers.matchers if each.name == "__name__")
