"""What the loader's decorators share: the kinds of functions that they are given, and blocks that decorate.

A call of a coroutine function or a generator function only makes an object, which runs later: a decorator that merely
calls such a function is over before anything has run.
"""

from collections.abc import Callable
from contextlib import ContextDecorator
from functools import partial, wraps
from typing import Any, TypeVar, cast

from mempressure.forks import ensure_own_process

_F = TypeVar("_F", bound=Callable[..., Any])

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


class Block(ContextDecorator):
    """Something that holds for the length of a `with` block or, as a decorator, of each call of a function.

    The call of a coroutine function lasts until its coroutine has ended, that of a generator function until its
    generator has. A block may be entered again while it holds, by several threads and tasks at once.

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
        """Return the function such that the block holds during each of its calls."""
        wrapper = _WRAPPERS.get(kind_of_function(function))
        return super().__call__(function) if wrapper is None else cast(_F, wraps(function)(wrapper(self, function)))


def _coroutine(block: Block, function: Callable[..., Any]) -> Callable[..., Any]:
    async def held(*args: Any, **kwargs: Any) -> Any:
        with block:
            return await function(*args, **kwargs)

    return held


def _generator(block: Block, function: Callable[..., Any]) -> Callable[..., Any]:
    def held(*args: Any, **kwargs: Any) -> Any:
        with block:
            return (yield from function(*args, **kwargs))

    return held


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
