"""The roles of an app's processes on the status page, a bar of what their memory consists of, and the advice. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mempressure.decide.advice import AdviceDict
from mempressure.decide.inventory import AppDict
from mempressure.decide.roles import PARTS, RoleDict
from mempressure.units import UNKNOWN, duration, size

PART_NAMES = dict(zip(PARTS, ("shared", "fresh", "imported late", "grown", "not split"), strict=True))
"""What each part of a bar is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarPart:
    """A part of a stacked bar."""

    name: str
    """One of `PARTS`."""
    start: str
    width: str
    """In percent of the width that the app's largest role has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleView:
    """A row of an app's roles: texts, and the parts of its bar in order."""

    title: str
    processes: str
    memory: str
    private: str
    parts: tuple[tuple[str, str], ...]
    """What a column is called, and the size."""
    idle: str
    bar: tuple[BarPart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviceView:
    """A piece of advice; `gives` is what it is expected to give back or to cost."""

    gives: str
    action: str
    code: str


def role_views(app: AppDict) -> tuple[RoleView, ...]:
    """Return the rows of an app's roles, in their order."""
    most = max((role["proportional_bytes"] for role in app["roles"]), default=0)
    return tuple(_role_view(role, most) for role in app["roles"])


def advice_views(app: AppDict) -> tuple[AdviceView, ...]:
    """Return an app's advice."""
    return tuple(_advice_view(each) for each in app["advice"])


def _role_view(role: RoleDict, most: int) -> RoleView:
    sizes: dict[str, Any] = {part: role[f"{part}_bytes"] for part in PARTS}  # type: ignore[literal-required]  # all are
    return RoleView(
        title=role["title"],
        processes=f"{role['processes']} process{'es' * (role['processes'] != 1)}",
        memory=size(role["proportional_bytes"]),
        private=size(role["private_bytes"]),
        parts=tuple((PART_NAMES[part].capitalize(), size(sizes[part])) for part in PARTS if part != "unsplit"),
        idle=UNKNOWN if role["idle_seconds"] is None else duration(role["idle_seconds"]),
        bar=_bar([(part, sizes[part] or 0) for part in PARTS], most),
    )


def _bar(parts: Sequence[tuple[str, int]], most: int) -> tuple[BarPart, ...]:
    drawn, start = [], 0
    for name, bytes_ in parts:
        if bytes_ and most:
            drawn.append(BarPart(name=name, start=_percent(start, most), width=_percent(bytes_, most)))
        start += bytes_
    return tuple(drawn)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%"


def _advice_view(advice: AdviceDict) -> AdviceView:
    return AdviceView(
        gives=f"{_change(advice['rest_bytes'])} at rest, {_change(advice['peak_bytes'])} at the peak",
        action=advice["action"],
        code=advice["code"],
    )


def _change(bytes_: int) -> str:
    return f"{size(-bytes_)} more" if bytes_ < 0 else f"{size(bytes_)} less"
