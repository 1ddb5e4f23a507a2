"""The shop's reports: the functions that are isolated, or not, in the ways that `SHOP_WAY` names.

`plain` imports both packages at the top, so that gunicorn's `--preload` has the workers share them; there is no
mempressure in it. The others isolate: `one` in one process a package, `default` in as many as there are cores,
`together` in one process for both, `worker` in processes of each worker's own.
"""

import io
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    import pandas as pd

F = TypeVar("F", bound=Callable[..., Any])
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "one": {"processes": 1},
    "default": {},
    "together": {"processes": 1},
    "worker": {"processes": "worker"},
}


def _runs_in(package: str) -> Callable[[F], F]:
    """Return the decorator of a function that uses a package."""
    way = os.environ["SHOP_WAY"]
    if way == "plain":
        __import__({"matplotlib": "matplotlib.figure"}.get(package, package))
        return lambda function: function
    from mempressure import get_lazy_loader

    names = ("pandas", "matplotlib") if way == "together" else (package,)
    return cast("Callable[[F], F]", get_lazy_loader().isolated(*names, **_OPTIONS[way]))


@_runs_in("pandas")
def monthly(region: str) -> list[float]:
    """Return the sales of a region in each month."""
    sales = _sales()
    of_region = sales[sales["region"] == region]
    values: list[float] = (of_region["price"] * of_region["pieces"]).groupby(of_region["month"]).sum().round(2).tolist()
    return values


@_runs_in("matplotlib")
def chart(region: str, values: list[float]) -> bytes:
    """Return a bar chart of the sales as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3))
    axes = figure.subplots()
    axes.bar(range(1, len(values) + 1), values)
    axes.set_title(f"Sales in the {region}")
    axes.set_xlabel("month")
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


@cache
def _sales() -> "pd.DataFrame":
    import pandas as pd

    return pd.read_csv(os.environ["SHOP_SALES"])
