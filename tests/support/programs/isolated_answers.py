"""What the functions of isolated_numbers and isolated_memory are to return; imports none of them, nor a loader."""

ANSWERS = {
    "pandas": ("Series(range(10)).sum()", 45),
    "sympy": ("sympify('x**3').diff('x').subs('x', 3)", 27),
    "matplotlib.pyplot": ("get_cmap('viridis').N", 256),
    "scipy.stats": ("norm.cdf(0) * 2", 1),
}
"""By package: what is worked out with it, and the answer."""


def known(kind, number):
    """Return what `squares` or `groups` is to return, worked out by other means."""
    if kind == "squares":
        return (number - 1) * number * (2 * number - 1) // 6
    return [sum(range(remainder, number, 3)) for remainder in range(3)]
