import asyncio
import contextlib
import functools

import pytest

from mempressure.decorators import Block, kind_of_function


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
