"""What an ordinary application module does with sympy: imports it once, at the top, and keeps the name."""

import sympy

_X = sympy.Symbol("x")


def derivative(exponent: int) -> str:
    """Return the factored derivative of (x + 1)**exponent, worked out anew each time."""
    return str(sympy.factor(sympy.diff(sympy.expand((_X + 1) ** exponent), _X)))
