"""Pickling of exceptions that an isolated function raised, also of those that cannot be pickled as they are.

A worker loads this module only to unpickle such an exception.
"""

import pickle
from collections.abc import Callable, Mapping


def pickled(error: BaseException, *, limit: int) -> bytes | None:
    """Pickle an exception in at most `limit` bytes, without the parts that cannot be pickled.

    None where it is no `Exception`, or where neither it nor an equivalent one can be pickled.
    """
    if not isinstance(error, Exception):
        return None
    for attempt in (_whole, _without_unpicklable_parts):
        try:
            # Many can be pickled but not unpickled: their constructors take other arguments than are in `args`.
            data = attempt(error)
            if len(data) <= limit and type(pickle.loads(data)) is type(error):  # noqa: S301 - it was made here
                return data
        except BaseException:  # noqa: BLE001, S112 - its own code may raise anything; the description remains
            continue
    return None


def rebuilt(kind: type[Exception], args: tuple[object, ...], state: Mapping[str, object], lost: list[str]) -> Exception:
    """Return an exception made from its parts, with a note that names the `lost` ones.

    Its `__init__` is not called: it may take other arguments than are in `args`.
    """
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    if lost:
        error.add_note(f"passed on by its package process without {', '.join(lost)}, which cannot be pickled")
    return error


class _Parts:
    """The parts of an exception; unpickles as the exception, by a call of `rebuilt`."""

    def __init__(self, *arguments: object) -> None:
        self._arguments = arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return rebuilt, self._arguments


def _whole(error: Exception) -> bytes:
    return pickle.dumps(error, 5)


def _without_unpicklable_parts(error: Exception) -> bytes:
    lost: list[str] = []

    def kept(name: str, value: object) -> bool:
        try:
            pickle.loads(pickle.dumps(value, 5))  # noqa: S301 - it was made here
        except Exception:  # noqa: BLE001 - its own code may raise anything
            lost.append(name)
            return False
        return True

    args = tuple(arg if kept(f"argument {number}", arg) else repr(arg) for number, arg in enumerate(error.args, 1))
    state = {name: value for name, value in vars(error).items() if kept(f"attribute {name!r}", value)}
    if str(rebuilt(type(error), args, state, [])) != str(error):
        raise ValueError("its text would change")
    return pickle.dumps(_Parts(type(error), args, state, lost), 5)
