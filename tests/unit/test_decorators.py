import asyncio
import contextlib
import functools
import gc
import types

import pytest

from mempressure.decorators import Block, Marks, kind_of_function
from mempressure.errors import ConfigurationError


async def coroutine():
    """Do nothing."""


async def async_generator():
    yield 1


def generator():
    yield 1


def plain():
    return coroutine()


class Kinds:
    async def coroutine(self):
        """Do nothing."""

    async def __call__(self):
        """Do nothing."""


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (plain, ""),
        (len, ""),
        (Kinds, ""),
        (coroutine, "a coroutine function (async def)"),
        (async_generator, "an asynchronous generator function"),
        (generator, "a generator function"),
        (functools.partial(functools.partial(coroutine)), "a coroutine function (async def)"),
        (functools.wraps(coroutine)(plain), ""),
        (Kinds().coroutine, "a coroutine function (async def)"),
        (Kinds(), "a coroutine function (async def)"),
    ],
)
def test_what_runs_nothing_when_it_is_called(function, kind):
    assert kind_of_function(function) == kind


@pytest.fixture
def held():
    """Whether the fixture's block holds: as many times as it was entered and not left."""
    return [0]


@pytest.fixture
def block(held):
    def change(by):
        held[0] += by

    return Block(functools.partial(change, 1), functools.partial(change, -1))


def test_a_block_holds_until_it_is_left_and_may_be_entered_again(block, held):
    with block:
        with block:
            assert held == [2]
        assert held == [1]
    with contextlib.suppress(OSError), block:
        raise OSError
    assert held == [0]


def test_a_plain_function_is_held_for_each_call(block, held):
    @block
    def double(number):
        """Return twice the number."""
        assert held == [1]
        return 2 * number

    assert (double(2), double(3), held) == (4, 6, [0])
    assert (double.__name__, double.__doc__) == ("double", "Return twice the number.")


def test_a_coroutine_function_is_held_until_its_coroutine_has_ended(block, held):
    @block
    async def flush(number, *, fails=False):
        await asyncio.sleep(0)
        assert held[0] >= 1
        if fails:
            raise OSError("gone")
        return number

    async def main():
        waiting = flush(1)
        assert held == [0]
        assert (await waiting, held) == (1, [0])
        assert await asyncio.gather(flush(2), flush(3)) == [2, 3]
        with pytest.raises(OSError, match="gone"):
            await flush(4, fails=True)
        task = asyncio.create_task(flush(5))
        await asyncio.sleep(0)
        assert held == [1]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert held == [0]
    assert kind_of_function(flush)


def test_a_generator_is_held_until_it_is_exhausted_or_closed(block, held):
    @block
    def rows():
        sent = yield 1
        assert held == [1]
        yield sent
        return "end"

    made = rows()
    assert held == [0]
    assert (next(made), held, made.send("sent")) == (1, [1], "sent")
    with pytest.raises(StopIteration, match="end"):
        next(made)
    assert held == [0]
    other = rows()
    next(other)
    other.close()
    assert held == [0]


def test_an_asynchronous_generator_is_held_and_gets_what_is_sent_and_thrown(block, held):
    seen = []

    @block
    async def session():
        try:
            seen.append((yield 1))
            seen.append((yield 2))
        except OSError as error:
            seen.append(error.args)
            yield 3
        finally:
            await asyncio.sleep(0)
            seen.append(held[0])

    async def main():
        made = session()
        assert held == [0]
        assert (await anext(made), held, await made.asend("sent")) == (1, [1], 2)
        assert await made.athrow(OSError("gone")) == 3
        with pytest.raises(StopAsyncIteration):
            await anext(made)
        assert (seen, held) == (["sent", ("gone",), 1], [0])
        seen.clear()
        closed = session()
        await anext(closed)
        await closed.aclose()
        assert (seen, held) == ([1], [0])
        with pytest.raises(ValueError, match="unhandled"):
            async with contextlib.asynccontextmanager(session)():
                raise ValueError("unhandled")
        assert held == [0]

    asyncio.run(main())
    assert held == [0]


def plainly(function):
    """Another decorator, whose wrapper is a plain function."""

    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


def through_object(function):
    """An instance whose call is the function."""

    class Called:
        __call__ = staticmethod(function)

    return Called()


SHAPES = [lambda function: function, functools.partial, plainly, through_object]


def functions(see):
    """Return a function of each kind that calls `see` when it runs."""

    def plain():
        see()

    def generator():
        yield see()

    async def coroutine():
        await asyncio.sleep(0)
        see()

    async def async_generator():
        yield see()

    return {"generator": generator, "coroutine": coroutine, "asynchronous generator": async_generator}, plain


async def run(kind, function):
    """Run a decorated function of a kind to its end."""
    if kind == "generator":
        list(function())
    elif kind == "coroutine":
        await function()
    elif kind == "asynchronous generator":
        assert [item async for item in function()] == [None]
    elif kind == "thread":
        await asyncio.to_thread(function)
    else:
        function()


@pytest.mark.parametrize("shape", SHAPES, ids=["function", "partial", "decorated", "object"])
@pytest.mark.parametrize("kind", ["plain", "generator", "coroutine", "asynchronous generator", "thread"])
def test_every_kind_of_function_in_every_shape_is_held_while_it_runs(block, held, kind, shape):
    seen = []
    special, plain = functions(lambda: seen.append(held[0]))
    asyncio.run(run(kind, block(shape(special.get(kind, plain)))))
    assert (seen, held) == ([1], [0])


def test_a_generator_that_can_be_awaited_still_can(block, held):
    @block
    @types.coroutine
    def flush():
        yield
        return held[0]

    async def main():
        return await flush()

    assert asyncio.run(main()) == 1
    assert held == [0]


@pytest.mark.parametrize(
    "wrong",
    [Kinds, staticmethod(plain), classmethod(plain), property(plain), None],
    ids=["class", "staticmethod", "classmethod", "property", "None"],
)
def test_what_is_no_function_is_refused_at_the_declaration(block, wrong):
    with pytest.raises(ConfigurationError, match="decorate the function itself"):
        block(wrong)


def test_a_generator_that_the_garbage_collector_ends_within_the_same_thread_is_left(held):
    marks = Marks()

    @Block(marks.add, marks.remove)
    def rows():
        yield 1

    made = rows()
    next(made)
    assert len(marks) == 1
    cycle = [made]
    cycle.append(cycle)
    del made, cycle
    gc.collect()
    assert len(marks) == 0


def test_a_child_that_leaves_its_parent_s_block_has_a_mark_for_each_of_its_own():
    marks = Marks()
    marks.add()
    marks.clear()  # as in the child
    marks.remove()
    marks.add()
    assert len(marks) == 1
