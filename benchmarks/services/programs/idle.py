"""A web application that has imported much and is asked for nothing."""

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import sympy


def application(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"pandas {pd.__version__}, sympy {sympy.__version__}".encode()]
