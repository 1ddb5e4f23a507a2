"""Derivatives with sympy, which lives in the worker and is tracked."""

from app.utils.lazy_loader import get_lazy_loader

_loader = get_lazy_loader()
_sympy = _loader.import_module("sympy")


def derivative_of_power(exponent: int) -> str:
    """Return d/dx of (x + 1)**exponent, expanded, as text."""
    x = _sympy.Symbol("x")
    return str(_sympy.expand(_sympy.diff((x + 1) ** exponent, x)))
