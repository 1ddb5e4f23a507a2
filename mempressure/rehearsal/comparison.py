"""Comparison of two results of an exercise, of any type, by value."""

import pickle
from typing import Any


class IncomparableError(Exception):
    """Two values of this kind cannot be compared; the message says which kind."""


def pickled(value: object) -> bytes:
    """Return a value as bytes that outlive the package it came from.

    Raises:
        IncomparableError: it cannot be pickled.
    """
    try:
        return pickle.dumps(value, 5)
    except Exception as error:
        raise IncomparableError(
            f"the result ({_kind(value)}) cannot be pickled: {type(error).__name__}: {error}"
        ) from error


def equal_pickles(first: bytes, last: bytes) -> bool:
    """Return whether two pickled results are equal.

    Equal bytes are equal values; others are unpickled and compared, since sets and shared objects can be written in
    several ways.

    Raises:
        IncomparableError: they cannot be unpickled, or are of a kind that has no equality.
    """
    if first == last:
        return True
    try:
        one, other = pickle.loads(first), pickle.loads(last)  # noqa: S301 - results of the exercise, made by this run
    except Exception as error:
        raise IncomparableError(f"the result cannot be unpickled: {type(error).__name__}: {error}") from error
    try:
        return equal(one, other)
    except RecursionError:
        raise IncomparableError(f"the result ({_kind(one)}) is nested too deep") from None


def equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal: exactly, NaN equal to NaN, and element by element.

    NumPy arrays and pandas' objects are compared by their own equality, together with their dtypes and names.

    Raises:
        IncomparableError: they hold something that has no equality.
    """
    if one is other or type(one) is not type(other):
        return one is other
    library = type(one).__module__.partition(".")[0]
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if library == "numpy" and hasattr(one, "dtype"):
        return _equal_arrays(one, other)
    if library == "pandas" and hasattr(one, "equals"):
        return _equal_frames(one, other)
    return _equal_objects(one, other)


def _equal_arrays(one: Any, other: Any) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.hasobject:
        return equal(one.tolist(), other.tolist())
    if one.dtype.kind in "fcmM":  # the kinds that have NaN or NaT
        return bool(((one == other) | ((one != one) & (other != other))).all())  # noqa: PLR0124 - likewise
    return bool((one == other).all())


def _equal_frames(one: Any, other: Any) -> bool:
    """Compare Series, DataFrames and Indexes; their `equals` looks at values and labels, not at names and dtypes."""
    parts = [name for name in ("dtypes", "dtype", "name", "axes") if hasattr(one, name)]
    return bool(one.equals(other)) and all(equal(getattr(one, name), getattr(other, name)) for name in parts)


def _equal_objects(one: Any, other: Any) -> bool:
    kind: Any = type(one)
    if kind.__eq__ is object.__eq__:
        # Identity only: what they are made of has to decide.
        if _same_bytes(one, other):
            return True
        if getattr(one, "__dict__", None):
            return equal(vars(one), vars(other))
        raise IncomparableError(f"{_kind(one)} has no equality; return plain data")
    try:
        verdict = one == other
        if hasattr(verdict, "all") and not isinstance(verdict, bool):  # an array's kind of answer
            verdict = verdict.all()
        same = bool(verdict)
    except Exception as error:
        raise IncomparableError(f"comparing {_kind(one)} failed: {type(error).__name__}: {error}") from error
    # A NaN somewhere inside makes equal objects differ; written out they are the same.
    return same or _same_bytes(one, other)


def _same_bytes(one: object, other: object) -> bool:
    try:
        return pickle.dumps(one, 5) == pickle.dumps(other, 5)
    except Exception:  # noqa: BLE001 -- their methods may raise anything; then the two cannot be compared
        return False


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
