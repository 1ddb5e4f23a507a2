"""Isolated functions: an application declares and calls them, and their bodies run in processes of their package."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, cast

from mempressure.errors import IsolationError
from mempressure.isolation.calls import importable_name
from mempressure.isolation.package import IsolatedPackage
from mempressure.package_process import functions, identity

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["IsolatedFunction", "IsolatedPackage"]

P = ParamSpec("P")
R = TypeVar("R")


class IsolatedFunction(Generic[P, R]):
    """A function whose body runs in a process of its package; inside that process it is the plain function.

    Args:
        function: a plain function of an importable module.
        package: the package in whose processes it runs.
        declared_in: the module whose code declares it; the function's own by default.

    Raises:
        IsolationError: the function cannot be found by name in another process, or is not a plain function.
    """

    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], *, package: IsolatedPackage, declared_in: str | None = None) -> None:
        self.package = package
        self._module, self._qualname = importable_name(function)
        # The main program has another name in a package process.
        self._declared_in = self._module if declared_in is None or declared_in == "__main__" else declared_in
        self._names = (self._module, self._qualname, self._declared_in)
        functools.update_wrapper(self, function)
        functions.declare(self._module, self._qualname, function)
        _declared[self._module, self._qualname] = self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, wait, and return its result.

        Raises:
            Exception: what the function raised, of its own type.
            IsolationError: the call or its result cannot be sent; the message says what to change.
            ProcessStartError: the package's process failed to start.
            ProcessDiedError: the package's process ended during the call.
        """
        if self._module == "__main__":
            raise IsolationError(
                f"{self._qualname} is defined in the main program, which its package process cannot import; "
                "move it to a module of its own and import it from there"
            )
        package = self.package
        if identity.packages() is not None:  # made there, not declared by the loader
            inside = functions.FunctionInside(self.__wrapped__, self._names, package.packages)
            return cast(R, inside(*args, **kwargs))
        return cast(R, package.call(self._module, self._qualname, args, kwargs, declared_in=self._declared_in))

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Make the call in another thread; `asyncio.wrap_future` makes the future awaitable.

        A future can be cancelled until its call starts.
        """
        return self.package.executor().submit(self, *args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str, str]]:
        # By its declaration: its name may be bound to what a decorator above it has made.
        return _by_name, self._names

    def __repr__(self) -> str:
        return f"<isolated function {self._module}.{self._qualname} of package {self.package.name!r}>"


_declared: dict[tuple[str, str], object] = {}


def _by_name(module: str, qualname: str, declared_in: str) -> object:
    """Return the isolated function of that name, or the plain one where it is not declared here."""
    body = functions.declared(module, qualname, declared_in)
    return _declared.get((module, qualname), body)
