"""Plain results: NumPy scalars become Python's, and any other object of an isolated package is refused.

A result that has an object of the package imports the package into the worker, which keeps it for good.
"""

TYPE_CHECKING = False  # typing's own would load typing

if TYPE_CHECKING:
    from typing import Any

_CONTAINERS = (list, tuple, dict, set, frozenset)


class NotPlainError(TypeError):
    """A result has an object of the package; the message names its type, and where in the result it is."""


def plain(value: "Any", packages: "tuple[str, ...]") -> "Any":
    """Return a value without objects of these packages, or of NumPy: their scalars become Python's own.

    Lists, tuples, dictionaries and sets are looked through; other objects are returned as they are.

    Args:
        value: what a function returned.
        packages: import names.

    Raises:
        NotPlainError: an object of them is no scalar.
    """
    return _plain(value, frozenset((*packages, "numpy")), "the result")


def _plain(value: "Any", packages: "frozenset[str]", where: str) -> "Any":
    kind = type(value)
    if kind in (str, bytes, int, float, bool, type(None)):
        return value
    if kind in _CONTAINERS:
        return _plain_container(value, packages, where)
    # A subclass, such as numpy.float64 of float or scipy.stats' named tuples of results, is of its package too.
    home = kind.__module__.partition(".")[0]
    if home not in packages:
        return _plain_container(value, packages, where) if _is_namedtuple(value) else value
    scalar = getattr(value, "item", None)
    if home == "numpy" and callable(scalar) and getattr(value, "ndim", 1) == 0:
        item = scalar()
        if type(item).__module__.partition(".")[0] not in packages:
            return item
    raise NotPlainError(
        f"{where} is a {kind.__module__}.{kind.__qualname__}, an object of package {home!r}, which would import it "
        "into the worker; return plain data (for an array .tolist(), for a table .to_dict()), or declare the function "
        'with results="any"'
    )


def _plain_container(value: "Any", packages: "frozenset[str]", where: str) -> "Any":
    if isinstance(value, dict):
        return {
            _plain(key, packages, f"a key of {where}"): _plain(each, packages, f"{where}[{key!r}]")
            for key, each in value.items()
        }
    if isinstance(value, (set, frozenset)):
        return type(value)([_plain(each, packages, f"an element of {where}") for each in value])
    items = [_plain(each, packages, f"{where}[{place}]") for place, each in enumerate(value)]
    if isinstance(value, list):
        return items
    return type(value)(*items) if _is_namedtuple(value) else tuple(items)


def _is_namedtuple(value: "Any") -> bool:
    return isinstance(value, tuple) and type(value) is not tuple and hasattr(value, "_fields")
