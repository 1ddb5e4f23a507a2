"""Answering a call: finds the function, runs its body, and pickles the result or the exception."""

from mempressure.package_process.functions import declared
from mempressure.protocol import frames
from mempressure.protocol.frames import Payload

TYPE_CHECKING = False  # typing's own would load typing

if TYPE_CHECKING:
    from types import TracebackType

_MOST_CHARACTERS = 16_384  # of an error's text, and of its traceback


def answer(call: Payload, *, limit: int, packages: "tuple[str, ...]") -> "tuple[int, Payload]":
    """Run a call and return the kind and the value of the answer.

    Args:
        call: module, qualified name, declaring module, arguments, keyword arguments, and whether the result is to be
            plain (see `mempressure.package_process.plain`).
        limit: most bytes of a result.
        packages: the import names of the packages of this process.
    """
    stage = "arguments"
    try:
        module, qualname, declared_in, arguments, keywords, to_be_plain = frames.decode(call)
        stage = "function"
        function = declared(module, qualname, declared_in)
        stage = "body"
        result = function(*arguments, **keywords)
        stage = "result"
        if to_be_plain:
            from mempressure.package_process.plain import plain  # where it is asked for

            stage = "plain"
            result = plain(result, packages)
            stage = "result"
        payload = frames.encode(result)
    except BaseException as error:  # noqa: BLE001 - a SystemExit in a function must not end its package's process
        return _failure(error, stage, limit)
    if payload.size > limit:
        return frames.REFUSED, frames.encode(("limit", str(payload.size), str(limit), ""))
    return frames.RESULT, payload


def _failure(error: BaseException, stage: str, limit: int) -> "tuple[int, Payload]":
    trace = error.__traceback__
    if stage == "body" and trace:
        trace = trace.tb_next  # the frame of `answer` says nothing to the reader
    described = description(error, trace)
    if stage != "body":
        return frames.REFUSED, frames.encode((stage, *described))
    from mempressure.package_process.exceptions import pickled

    return frames.RAISED, frames.encode((pickled(error, limit=limit), *described))


def description(error: BaseException, trace: "TracebackType | None") -> "tuple[str, str, str]":
    """Return type, text and traceback of an error, each as far as its own methods allow."""
    import traceback  # 1 MiB with what it imports, which a process without errors need not hold

    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - a broken __str__ must not hide the error
        text = "<its __str__ failed>"
    try:
        lines = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:  # noqa: BLE001 - likewise for its causes and notes
        lines = "".join(traceback.format_tb(trace)) + f"{name}: {text}\n"
    return name, _shortened(text), _shortened(lines)


def _shortened(text: str) -> str:
    """Return the beginning and the end of a long text: the last line of a traceback says what happened."""
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = _MOST_CHARACTERS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
