"""A call of an isolated function as it travels: what is sent for it, and what the answer means to the caller."""

import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mempressure.errors import IsolationError
from mempressure.isolation import frames
from mempressure.isolation.frames import Frame, Payload

_NEVER_PLAIN = 0x20 | 0x80 | 0x200  # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
_REFUSALS = {
    "arguments": (
        "the arguments of {called} cannot be unpickled in its package process: {error}; "
        "send plain data, or instances of classes that an importable module defines"
    ),
    "function": (
        "{called} cannot be found in its package process: {error}; isolated functions must be importable by name there"
    ),
    "size": (
        "the arguments of {called} do not fit into the memory of its package process: {error}; "
        "send less, or the name of a file"
    ),
    "result": (
        "the result of {called} cannot be pickled: {error}; "
        "return plain data, or instances of classes that an importable module defines"
    ),
}


class RemoteTraceback(Exception):  # noqa: N818 - no error itself: the text of one, attached to it as its cause
    """Where in the package process an exception was raised, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def importable_name(function: Callable[..., object]) -> tuple[str, str]:
    """Return the module and name under which another process finds a function.

    The module is `__main__` where the main program has no other name.

    Raises:
        IsolationError: it is no plain function at the top level of a module; the message says what to do.
    """
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or not callable(function):
        raise IsolationError(f"{function!r} has no module and name to be found by; isolate a function of a module")
    if "<" in qualname:
        kind = "a lambda" if qualname.endswith("<lambda>") else "defined inside another function"
        raise IsolationError(
            f"{module}.{qualname} is {kind} and cannot be found by name in a package process; "
            "define it with def at the top level of a module"
        )
    if "." in qualname:
        raise IsolationError(
            f"{module}.{qualname} is defined in a class; isolate a function at the top level of a module and pass it "
            "what it needs"
        )
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & _NEVER_PLAIN:
        raise IsolationError(
            f"{module}.{qualname} is a coroutine function or generator, which cannot run in another process; isolate "
            "a plain function that returns its result, and await asyncio.wrap_future(function.submit(...)) instead"
        )
    if module == "__main__":
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        # `python -m package` runs package.__main__: importing that would run the whole program again.
        if spec is not None and spec.name.rpartition(".")[2] != "__main__":
            module = spec.name
    return module, qualname


def encode_call(
    module: str,
    qualname: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    limit: int = frames.MESSAGE_BYTES,
) -> Payload:
    """Pickle a call of at most `limit` bytes.

    Raises:
        IsolationError: an argument cannot be pickled, and the message says which; or they are too large together.
    """
    try:
        call = frames.encode((module, qualname, args, kwargs))
    except Exception as error:
        culprit = _culprit(args, kwargs)
        raise IsolationError(
            f"{culprit} of {module}.{qualname} cannot be pickled ({_one_line(error)}), and so cannot be sent to its "
            "package process; send plain data, or instances of classes that an importable module defines"
        ) from error
    if call.size > limit:
        raise IsolationError(_too_large(f"the arguments of {module}.{qualname}", call.size, limit, "send"))
    return call


def result_of(answer: Frame, called: str) -> Any:
    """Return the result that an answer carries.

    Args:
        answer: the package process's answer.
        called: the function's full name, for messages.

    Raises:
        Exception: what the function raised, of its own type, a `RemoteTraceback` as its cause.
        IsolationError: the function could not be run, or what it returned or raised cannot travel.
    """
    if answer.kind == frames.RESULT:
        return _result(answer.payload, called)
    if answer.kind == frames.RAISED:
        pickled, name, text, trace = frames.decode(answer.payload)
        raise _raised(pickled, name, text, called) from RemoteTraceback(trace)
    stage, name, text, trace = frames.decode(answer.payload)
    if stage == "limit":
        raise IsolationError(_too_large(f"the result of {called}", int(name), int(text), "return"))
    raise IsolationError(_REFUSALS[stage].format(called=called, error=f"{name}: {text}")) from RemoteTraceback(trace)


def _result(payload: Payload, called: str) -> Any:
    try:
        return frames.decode(payload)
    except (Exception, SystemExit) as error:  # a class' own code runs here, and may try anything
        raise IsolationError(
            f"the result of {called} cannot be unpickled ({_one_line(error)}); "
            "return plain data, or instances of classes that can be imported here too"
        ) from error


def _raised(pickled: bytes | None, name: str, text: str, called: str) -> Exception:
    if pickled is None:
        return IsolationError(f"{called} raised {name}: {text} (which cannot be passed on itself)")
    try:
        error = pickle.loads(pickled)  # noqa: S301 - both ends are one user's own code
    except (Exception, SystemExit) as failure:  # noqa: BLE001 - a class' own code runs here, and may try anything
        return IsolationError(f"{called} raised {name}: {text} (unpickling it failed with {_one_line(failure)})")
    if not isinstance(error, Exception):
        return IsolationError(f"{called} raised {name}: {text} (which unpickles as {type(error).__qualname__})")
    return error


def _too_large(what: str, size: int, limit: int, verb: str) -> str:
    return (
        f"{what} take {size} bytes, more than the {limit} that may travel at once; {verb} less, {verb} the name of a "
        "file, or raise MEMPRESSURE_MESSAGE_LIMIT"
    )


class _Parts:
    """Pickles as a call of `rebuilt`."""

    def __init__(self, *arguments: object) -> None:
        self._arguments = arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return rebuilt, self._arguments


def salvaged(error: Exception) -> bytes:
    """Pickle an exception that cannot be pickled, or not be unpickled, without what stands in the way.

    Raises:
        Exception: of any type; not even its class can be pickled, or it would read differently.
    """
    lost: list[str] = []

    def kept(name: str, value: object) -> bool:
        try:
            pickle.loads(pickle.dumps(value, 5))  # noqa: S301 - it was made here
        except Exception:  # noqa: BLE001 - whatever it raises: it cannot travel
            lost.append(name)
            return False
        return True

    args = tuple(arg if kept(f"argument {number}", arg) else repr(arg) for number, arg in enumerate(error.args, 1))
    state = {name: value for name, value in vars(error).items() if kept(f"attribute {name!r}", value)}
    if str(rebuilt(type(error), args, state, [])) != str(error):
        raise ValueError("it would read differently")
    return pickle.dumps(_Parts(type(error), args, state, lost), 5)


def rebuilt(kind: type[Exception], args: tuple[object, ...], state: Mapping[str, object], lost: list[str]) -> Exception:
    """Return an exception of a class without calling its `__init__`, which may take other arguments than it keeps."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    if lost:
        error.add_note(f"passed on by its package process without {', '.join(lost)}, which cannot be pickled")
    return error


def _culprit(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    named = [(f"argument {number}", value) for number, value in enumerate(args, 1)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        try:
            frames.encode(value)
        except Exception:  # noqa: BLE001 - this one it is, whatever it raises
            return f"{name} ({type(value).__qualname__})"
    return "the arguments together"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__qualname__}: {error}"
