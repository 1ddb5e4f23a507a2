"""Declaring residents and caches: what is refused, how they are named, and what else may have the name."""

import functools
import re

import pytest

from mempressure.errors import ConfigurationError, UnknownPackageError
from mempressure.loader import LazyLoader


@pytest.fixture
def loader():
    loader = LazyLoader(with_agent=False)
    yield loader
    loader.close()


async def coroutine():
    pass


def generator():
    yield


async def asynchronous_generator():
    yield


def requiring(path, *, size):
    pass


def optional(path="model.bin", *rest, size=3, **more):
    return path


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (coroutine, "resident coroutine is a coroutine function (async def)"),
        (generator, "resident generator is a generator function"),
        (asynchronous_generator, "is an asynchronous generator function"),
        (functools.partial(coroutine), "is a coroutine function"),
        (requiring, "resident requiring requires path, size"),
        (functools.partial(requiring, 1), "requires size"),
        (3, "resident of 3 cannot be declared"),
    ],
)
def test_functions_that_cannot_be_residents(loader, function, words):
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        loader.resident()(function)


@pytest.mark.parametrize("function", [coroutine, generator, 3])
def test_functions_that_cannot_have_a_cache(loader, function):
    with pytest.raises(ConfigurationError, match="cache "):
        loader.cache()(function)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": -1},
        {"timeout": "soon"},
        {"priority": 1.5},
        {"keep_loaded": 1},
        {"warm": "yes"},
        {"name": ""},
        {"name": 3},
        {"name": "a\nb"},
        {"name": "models/large"},
        {"name": "x" * 201},
    ],
)
def test_options_that_cannot_be_used(loader, options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        loader.resident(**options)(optional)


@pytest.mark.parametrize("options", [{"maxsize": "many"}, {"maxsize": 1.5}, {"typed": 1}, {"timeout": -1}])
def test_options_of_a_cache_that_cannot_be_used(loader, options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        loader.cache(**options)(optional)


def test_arguments_with_defaults_are_allowed(loader):
    assert loader.resident(optional)() == "model.bin"


def test_options_go_with_parentheses_and_without(loader):
    bare = loader.resident(optional)
    assert (bare.name, bare.timeout, bare.warm) == (f"{__name__}.optional", 300.0, False)
    given = loader.resident(timeout=5, priority=2, keep_loaded=True, warm=True, name="model")(optional)
    assert (given.name, given.timeout, given.priority, given.keep_loaded, given.warm) == ("model", 5.0, 2, True, True)
    assert loader.cache(requiring).timeout == 60.0
    assert loader.cache(maxsize=3, typed=True, name="x")(requiring).cache_parameters() == {"maxsize": 3, "typed": True}


def test_a_function_that_is_declared_again_takes_the_place_of_the_earlier(loader):
    earlier = loader.resident(name="model")(optional)
    earlier()
    again = loader.resident(name="model")(optional)
    assert [package.loads for package in loader.packages()] == [0]
    assert (earlier.loaded, again.loaded) == (False, False)


@pytest.mark.parametrize("function", [lambda: 1, functools.partial(optional, "other.bin")])
def test_what_has_no_name_of_its_own_must_be_given_one(loader, function):
    for declare in (loader.resident, loader.cache):
        with pytest.raises(ConfigurationError, match="has no name of its own; give the resident one: name="):
            declare(function)
    assert loader.resident(name="model")(function)() in (1, "other.bin")


def test_another_function_cannot_take_its_name(loader):
    loader.resident(name="model")(optional)
    with pytest.raises(ConfigurationError, match=r"test_declaration.optional is resident as 'model' already"):
        loader.cache(name="model")(requiring)


def test_a_package_and_a_resident_are_not_named_alike(loader):
    loader.manage("sched")
    loader.isolated("wsgiref", allow_imported=True)
    for name in ("sched", "wsgiref"):
        with pytest.raises(ConfigurationError, match="declared as a package already"):
            loader.resident(name=name)(optional)
    loader.resident(name="bisect")(optional)
    with pytest.raises(ConfigurationError, match="'bisect' is the name of a resident already"):
        loader.manage("bisect.whatever")
    with pytest.raises(ConfigurationError, match="'bisect' is the name of a resident already"):
        loader.isolated("bisect")


def test_they_are_listed_and_unloaded_by_name(loader):
    model = loader.resident(name="model")(object)
    model()
    (state,) = loader.packages()
    assert (state.name, state.source, state.loaded) == ("model", "resident", 1)
    result = loader.unload("model")
    assert (result.package, result.mechanism, result.skipped_reason) == ("model", "release", None)
    assert not model.loaded
    assert loader.unload("model").skipped_reason == "not loaded"
    with pytest.raises(UnknownPackageError, match="known are model"):
        loader.unload("models")
