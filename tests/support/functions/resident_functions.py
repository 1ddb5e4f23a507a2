"""A resident and a cache of a module, for what finds them by name."""

from mempressure.loader import LazyLoader

loader = LazyLoader(with_agent=False)


@loader.resident
def table():
    """Load the table."""
    return [1, 2, 3]


@loader.cache
def squared(number):
    """Return the square."""
    return number**2
