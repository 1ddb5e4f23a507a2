"""What an ordinary application module does with sympy: imports it once, at the top, and keeps the name."""

import sympy


def derivative(exponent: int) -> str:
    """Return the factored derivative of (x + 1)**exponent, worked out anew each time."""
    x = sympy.Symbol("x")
    return str(sympy.factor(sympy.diff(sympy.expand((x + 1) ** exponent), x)))
