"""What the loader's decorators share: the kinds of functions that they are given, and blocks that decorate.

A call of a coroutine function or a generator function only makes an object, which runs later: a decorator that merely
calls such a function is over before anything has run.
"""

from collections.abc import Callable
from contextlib import ContextDecorator, suppress
from functools import partial, wraps
from types import AsyncGeneratorType, CoroutineType, GeneratorType, coroutine
from typing import Any, TypeVar, cast

from mempressure.errors import ConfigurationError
from mempressure.forks import ensure_own_process

_F = TypeVar("_F", bound=Callable[..., Any])

_ITERABLE_COROUTINE = 0x100
"""`inspect.CO_ITERABLE_COROUTINE`."""
_KINDS = (
    ("iscoroutinefunction", "a coroutine function (async def)"),
    ("isasyncgenfunction", "an asynchronous generator function"),
    ("isgeneratorfunction", "a generator function"),
)


def kind_of_function(function: Callable[..., object]) -> str:
    """Return what kind of function it is whose call runs nothing, empty where a call runs it.

    That is "a coroutine function (async def)", "an asynchronous generator function" or "a generator function"; seen
    through partial objects, methods and instances that can be called.
    """
    import inspect  # 1.2 MB where nothing else loaded it: only paid where something is decorated

    called: Any = function
    while isinstance(called, partial):
        called = called.func
    # Of a class `__call__` is that of its instances; a call of the class makes one.
    both = (called,) if isinstance(called, type) else (called, called.__call__)
    return next((kind for check, kind in _KINDS if any(map(getattr(inspect, check), both))), "")


class Marks:
    """How often something is under way: one mark each, of any thread.

    Without a lock: the garbage collector ends generators that were dropped, also in a thread that would hold it.
    """

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks: list[None] = []

    def __len__(self) -> int:
        return len(self._marks)

    def add(self) -> None:
        """Set a mark."""
        self._marks.append(None)

    def remove(self) -> None:
        """Take a mark away; does nothing in a forked child that leaves a block which its parent entered."""
        with suppress(IndexError):
            self._marks.pop()

    def clear(self) -> None:
        """Take all marks away."""
        self._marks.clear()


class Block(ContextDecorator):
    """Something that holds for the length of a `with` block or, as a decorator, of each call of a function.

    The call of a coroutine function lasts until its coroutine has ended, that of a generator function until its
    generator has, also where a plain function, such as another decorator's, returns one. A block may be entered again
    while it holds, by several threads and tasks at once.

    Args:
        enter: called when it begins.
        leave: called when it ends, however it does.
    """

    def __init__(self, enter: Callable[[], None], leave: Callable[[], None]) -> None:
        self._enter = enter
        self._leave = leave

    def __enter__(self) -> None:
        ensure_own_process()
        self._enter()

    def __exit__(self, *error: object) -> None:
        self._leave()

    def __call__(self, function: _F) -> _F:
        """Return the function such that the block holds during each of its calls.

        Raises:
            ConfigurationError: it is a class, or cannot be called.
        """
        if isinstance(function, type | staticmethod) or not callable(function):
            raise ConfigurationError(
                f"{function!r:.100} is decorated, which is no function; decorate the function itself, for a class its "
                "methods, below @staticmethod, @classmethod or @property"
            )
        wrapper = _WRAPPERS.get(kind_of_function(function), _plain)
        return cast(_F, wraps(function)(wrapper(self, function)))


def _plain(block: Block, function: Callable[..., Any]) -> Callable[..., Any]:
    def held(*args: Any, **kwargs: Any) -> Any:
        with block:
            result = function(*args, **kwargs)
        wrapper = _RESULTS.get(type(result))
        return result if wrapper is None else wrapper(block, lambda: result)()

    return held


def _coroutine(block: Block, function: Callable[..., Any]) -> Callable[..., Any]:
    async def held(*args: Any, **kwargs: Any) -> Any:
        with block:
            return await function(*args, **kwargs)

    return held


def _generator(block: Block, function: Callable[..., Any]) -> Callable[..., Any]:
    def held(*args: Any, **kwargs: Any) -> Any:
        with block:
            return (yield from function(*args, **kwargs))

    # `types.coroutine` marks a generator function whose generators can be awaited.
    code = getattr(function, "__code__", None)
    return coroutine(held) if code is not None and code.co_flags & _ITERABLE_COROUTINE else held


def _async_generator(block: Block, function: Callable[..., Any]) -> Callable[..., Any]:
    async def held(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        with block:
            step = anext(generator)
            while True:  # `async for` would keep what is sent and thrown from it, as a context manager's exceptions are
                try:
                    item = await step
                except StopAsyncIteration:
                    return
                try:
                    step = generator.asend((yield item))
                except GeneratorExit:
                    await generator.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 -- it is the generator's to handle
                    step = generator.athrow(error)

    return held


_WRAPPERS = dict(zip((kind for _, kind in _KINDS), (_coroutine, _async_generator, _generator), strict=True))

_RESULTS: dict[type, Callable[..., Callable[..., Any]]] = {
    CoroutineType: _coroutine,
    AsyncGeneratorType: _async_generator,
    GeneratorType: _generator,
}
