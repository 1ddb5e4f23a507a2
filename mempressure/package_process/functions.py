"""Functions that run in package processes, by the names under which they were declared.

A name of a module may be bound to something else than the function: a retry, a cache, a task of a queue. Those belong
to the worker. What runs in the package process is the function that was declared, which is found here.
"""

import sys

from mempressure.package_process import identity

TYPE_CHECKING = False  # typing's own would load typing

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_declared: "dict[tuple[str, str], Callable[..., Any]]" = {}


def declare(module: str, qualname: str, function: "Callable[..., Any]") -> None:
    """Remember a function under the name that it was declared with; of two with one name the last one counts."""
    _declared[module, qualname] = function


def declared(module: str, qualname: str, declared_in: str) -> "Callable[..., Any]":
    """Return the function of that name, importing the module that defines it, and the one that declares it.

    Args:
        module: where the function is defined.
        qualname: its name there.
        declared_in: the module whose code declared it, the same one with a decorator.

    Raises:
        LookupError: neither module declares it, and the name is bound to something that is no plain function.
        Exception: what importing the modules raises.
    """
    function = _declared.get((module, qualname))
    if function is None:
        __import__(module)
        function = _declared.get((module, qualname)) or _plain(module, qualname)
    if function is None:
        __import__(declared_in)
        function = _declared.get((module, qualname))
    if function is None:
        raise LookupError(
            f"neither module {module!r} nor {declared_in!r} declares {qualname!r} as isolated when it is imported "
            "here; declare it at the top level of a module, without a condition"
        )
    return function


def _plain(module: str, qualname: str) -> "Callable[..., Any] | None":
    """Return what the name is bound to if that is the function itself, declared elsewhere or in another way."""
    function: Any = sys.modules[module]
    for part in qualname.split("."):
        function = getattr(function, part, None)
    named = getattr(function, "__qualname__", None) == qualname and getattr(function, "__module__", None) == module
    is_function = type(function).__name__ in ("function", "builtin_function_or_method")
    return function if named and is_function and not hasattr(function, "__wrapped__") else None


class FunctionInside:
    """An isolated function as it is inside a package process: the plain function, if its package lives there.

    Args:
        function: the function.
        names: its module, its qualified name, and the module that declares it.
        packages: the import names that its process loads.
    """

    def __init__(self, function: "Callable[..., Any]", names: tuple[str, str, str], packages: tuple[str, ...]) -> None:
        self.__wrapped__ = function
        self.__name__ = getattr(function, "__name__", names[1])
        self.__qualname__ = names[1]
        self.__module__ = names[0]
        self.__doc__ = function.__doc__
        self._names = names
        self._packages = packages
        declare(names[0], names[1], function)

    def __call__(self, *args: "Any", **kwargs: "Any") -> "Any":
        """Run the function here.

        Raises:
            IsolationError: it belongs to another package process.
        """
        here = identity.packages() or ()
        if set(self._packages) <= set(here):
            return self.__wrapped__(*args, **kwargs)
        from mempressure.errors import IsolationError

        raise IsolationError(
            f"{self._names[0]}.{self._names[1]} is isolated in {', '.join(self._packages)} and was called inside the "
            f"package process of {', '.join(here)}, which starts no others; call it in the worker and pass its result, "
            "or declare both packages in one process"
        )

    def submit(self, *args: "Any", **kwargs: "Any") -> "Any":
        """Run the function here, and return its result or exception as a future that is done."""
        from concurrent.futures import Future

        future: Future[Any] = Future()
        try:
            future.set_result(self(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - the future has it
            future.set_exception(error)
        return future

    def __reduce__(self) -> "tuple[Callable[..., Any], tuple[str, str, str]]":
        return declared, self._names
