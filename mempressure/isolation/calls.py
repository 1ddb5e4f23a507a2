"""Calls of isolated functions as messages: encoding a call, and turning its answer into a result or an exception."""

import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mempressure.errors import IsolationError
from mempressure.protocol import frames
from mempressure.protocol.frames import Frame, Payload

HookName = tuple[str, str, str]
"""Module and qualified name of a function that a package process calls, and the module that declares it."""

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
    "plain": "the result of {called} is not plain: {error}",
    "result": (
        "the result of {called} cannot be pickled: {error}; "
        "return plain data, or instances of classes that an importable module defines"
    ),
}


class RemoteTraceback(Exception):  # noqa: N818 - not an error itself: the cause attached to one
    """The traceback of an exception in the package process, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def importable_name(function: Callable[..., object]) -> tuple[str, str]:
    """Return the module and qualified name under which another process finds a function.

    The module is `__main__` where the main program has no other name.

    Raises:
        IsolationError: it is not a plain function at the top level of a module; the message says what to do.
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
    if code is not None and code.co_argcount and code.co_varnames[0] in ("self", "cls"):
        raise IsolationError(
            f"{module}.{qualname} takes {code.co_varnames[0]!r}: a method, or a task with bind=True, whose object "
            "lives in the worker; isolate a function that takes what it needs, and call it there"
        )
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


def hook_name(function: Callable[[], object], *, declared_in: str | None = None) -> HookName:
    """Return by which names a package process finds an `on_unload` or `on_start` function.

    Raises:
        IsolationError: it is not a plain function of an importable module; the message says what to do.
    """
    module, name = importable_name(function)
    if module == "__main__":
        raise IsolationError(
            f"function {name} is defined in the main program, which a package process cannot import; "
            "move it to a module of its own and import it from there"
        )
    return module, name, declared_in or module


def encode_call(
    function: tuple[str, str, str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    limit: int = frames.MESSAGE_BYTES,
    plain: bool = False,
) -> Payload:
    """Pickle a call of at most `limit` bytes.

    Args:
        function: its module, its qualified name, and the module that declares it.
        args: its arguments.
        kwargs: its keyword arguments.
        limit: bytes.
        plain: whether the result is to be plain.

    Raises:
        IsolationError: an argument cannot be pickled, and the message says which; or they are too large together.
    """
    called = f"{function[0]}.{function[1]}"
    try:
        call = frames.encode((*function, args, kwargs, plain))
    except Exception as error:
        culprit = _unpicklable_argument(args, kwargs)
        raise IsolationError(
            f"{culprit} of {called} cannot be pickled ({_one_line(error)}), and so cannot be sent to its "
            "package process; send plain data, or instances of classes that an importable module defines"
        ) from error
    if call.size > limit:
        raise IsolationError(_too_large(f"the arguments of {called}", call.size, limit, "send"))
    return call


def result_of(answer: Frame, called: str, *, decode: Callable[[Payload, str], Any]) -> Any:
    """Return the result that an answer contains, or raise the exception.

    Args:
        answer: the message that the package process sent.
        called: the function's full name, for messages.
        decode: unpickles a result; takes the full name too.

    Raises:
        Exception: what the function raised, of its own type, a `RemoteTraceback` as its cause.
        IsolationError: the function could not be run, or its result or exception cannot be sent.
    """
    if answer.kind == frames.RESULT:
        return _result(answer.payload, called, decode)
    if answer.kind == frames.RAISED:
        pickled, name, text, trace = frames.decode(answer.payload)
        raise _raised(pickled, name, text, called) from RemoteTraceback(trace)
    stage, name, text, trace = frames.decode(answer.payload)
    if stage == "limit":
        raise IsolationError(_too_large(f"the result of {called}", int(name), int(text), "return"))
    raise IsolationError(_REFUSALS[stage].format(called=called, error=f"{name}: {text}")) from RemoteTraceback(trace)


def _result(payload: Payload, called: str, decode: Callable[[Payload, str], Any]) -> Any:
    try:
        return decode(payload, called)
    except (Exception, SystemExit) as error:  # a class's own code runs here, and may raise anything
        raise IsolationError(
            f"the result of {called} cannot be unpickled ({_one_line(error)}); "
            "return plain data, or instances of classes that can be imported here too"
        ) from error


def _raised(pickled: bytes | None, name: str, text: str, called: str) -> Exception:
    if pickled is None:
        return IsolationError(f"{called} raised {name}: {text} (which cannot be passed on itself)")
    try:
        error = pickle.loads(pickled)  # noqa: S301 - both ends are one user's own code
    except (Exception, SystemExit) as failure:  # noqa: BLE001 - a class's own code runs here, and may raise anything
        return IsolationError(f"{called} raised {name}: {text} (unpickling it failed with {_one_line(failure)})")
    if not isinstance(error, Exception):
        return IsolationError(f"{called} raised {name}: {text} (which unpickles as {type(error).__qualname__})")
    return error


def _too_large(what: str, size: int, limit: int, verb: str) -> str:
    return (
        f"{what} take {size} bytes, more than the {limit} allowed in one message; {verb} less, {verb} the name of a "
        "file, or raise MEMPRESSURE_MESSAGE_LIMIT"
    )


def _unpicklable_argument(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    named = [(f"argument {number}", value) for number, value in enumerate(args, 1)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        try:
            frames.encode(value)
        except Exception:  # noqa: BLE001 - its own code may raise anything
            return f"{name} ({type(value).__qualname__})"
    return "the arguments together"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__qualname__}: {error}"
