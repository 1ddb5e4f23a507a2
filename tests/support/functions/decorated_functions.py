"""Isolated functions with decorators above, of two packages in one process that a function of its own sets up."""

import asyncio
import functools
import os
import sys

from mempressure.isolation.function import IsolatedFunction, IsolatedPackage

SET_UP = []


def set_up():
    """Run before the packages are imported."""
    SET_UP.append("colorsys" in sys.modules)


package = IsolatedPackage(
    "reports",
    packages=("colorsys", "wave"),
    processes=1,
    on_start=lambda: [(__name__, "set_up", __name__)],
)
CALLS = []


def isolated(function):
    return IsolatedFunction(function, package=package, declared_in=__name__)


def counted(function):
    """Note in which process the wrapper runs, and enqueue nothing twice."""

    @functools.wraps(function)
    def wrapper(*args):
        CALLS.append(os.getpid())
        return function(*args)

    return wrapper


def retried(function):
    @functools.wraps(function)
    def wrapper(*args):
        for _ in range(2):
            try:
                return function(*args)
            except ConnectionError:
                continue
        return function(*args)

    return wrapper


def in_thread(function):
    @functools.wraps(function)
    async def wrapper(*args):
        return await asyncio.to_thread(function, *args)

    return wrapper


@counted
@isolated
def place():
    return os.getpid(), len(CALLS)


@retried
@isolated
def flaky(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    raise ConnectionError("database away")


@in_thread
@isolated
def later(number):
    return 2 * number, os.getpid()


@functools.lru_cache
@isolated
def cached(number):
    return number, os.getpid()


@isolated
def loaded():
    return [name in sys.modules for name in package.packages], SET_UP


class Task:
    """A task of a queue: what is bound to the name is no function at all, and calling it enqueues."""

    enqueued = 0

    def __init__(self, function):
        self.run = function

    def __call__(self, *args):
        Task.enqueued += 1
        raise AssertionError("enqueued where it should run")


@Task
@isolated
def task(number):
    return number + 2, Task.enqueued
