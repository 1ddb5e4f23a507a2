"""What may be declared as a resident or a cache, refused where the mistake is made."""

from collections.abc import Callable
from typing import Any

from mempressure.decorators import kind_of_function
from mempressure.errors import ConfigurationError
from mempressure.state.records import MAX_NAME_LENGTH, is_printable


def checked_function(function: Callable[..., Any], *, what: str, takes_arguments: bool) -> Callable[..., Any]:
    """Return a function whose call returns what is to be kept.

    Args:
        function: as the application gave it.
        what: it is declared as, for the message: a resident or a cache.
        takes_arguments: whether it may require some.

    Raises:
        ConfigurationError: it cannot be called, it is a coroutine function or a generator function, or it requires
            arguments and must not.
    """
    if not callable(function):
        raise ConfigurationError(f"{what} of {function!r:.80} cannot be declared: decorate a function")
    name = getattr(function, "__qualname__", repr(function))
    if kind := kind_of_function(function):
        raise ConfigurationError(
            f"{what} {name} is {kind}: what it returns can be used once only; declare a plain function, and call that "
            "by asyncio.to_thread where it must not block"
        )
    if not takes_arguments and (required := _required(function)):
        raise ConfigurationError(
            f"{what} {name} requires {', '.join(required)}: a resident is one object; give them defaults, declare one "
            "resident for each, or use loader.cache"
        )
    return function


def checked_unit_name(name: object, function: Callable[..., Any]) -> str:
    """Return the name that was given, else the function's module and qualified name.

    Raises:
        ConfigurationError: it is no text of 1 to 200 printable characters without a slash; or none was given, and the
            function has no name of its own.
    """
    if name is None:
        qualname = str(getattr(function, "__qualname__", ""))
        if not qualname or qualname.endswith("<lambda>"):
            raise ConfigurationError(f"{function!r:.80} has no name of its own; give the resident one: name=")
        name = f"{function.__module__}.{qualname}"
    if not isinstance(name, str) or not name or "/" in name or not is_printable(name):  # it is part of URLs
        raise ConfigurationError(
            f"name={name!r:.80} of a resident cannot be used; send 1 to {MAX_NAME_LENGTH} printable characters, no /"
        )
    return name


def _required(function: Callable[..., Any]) -> list[str]:
    import inspect  # 1.2 MB where nothing else loaded it: only paid where one is declared

    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # some of the C functions have none: the call tells
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in optional]
