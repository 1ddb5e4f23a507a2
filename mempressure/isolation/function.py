"""Isolated functions: an application declares and calls them, and their bodies run in their package's own process."""

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, cast

from mempressure.config.configuration import PACKAGE_PROCESS_VARIABLE
from mempressure.errors import IsolationError
from mempressure.isolation.calls import importable_name
from mempressure.isolation.package import IsolatedPackage

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["IsolatedFunction", "IsolatedPackage"]

P = ParamSpec("P")
R = TypeVar("R")


class IsolatedFunction(Generic[P, R]):
    """A function whose body runs in its package's own process; inside that process it is the plain function.

    Args:
        function: a plain function of an importable module.
        package: the package in whose process it runs.

    Raises:
        IsolationError: the function cannot be found by name in another process, or is not a plain function.
    """

    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], *, package: IsolatedPackage) -> None:
        self.package = package
        self._module, self._qualname = importable_name(function)
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, wait, and return its result.

        Raises:
            Exception: what the function raised, of its own type.
            IsolationError: the call or its result cannot be sent; the message says what to change.
            ProcessStartError: the package's process failed to start.
            ProcessDiedError: the package's process ended during the call.
        """
        running_in = os.environ.get(PACKAGE_PROCESS_VARIABLE)
        if running_in is not None:
            if running_in == self.package.name:
                return self.__wrapped__(*args, **kwargs)
            raise IsolationError(
                f"{self._module}.{self._qualname} is isolated in {self.package.name!r} and was called inside the "
                f"package process of {running_in!r}, which starts no others; call it in the worker and pass its result"
            )
        if self._module == "__main__":
            raise IsolationError(
                f"{self._qualname} is defined in the main program, which its package process cannot import; "
                "move it to a module of its own and import it from there"
            )
        return cast(R, self.package.call(self._module, self._qualname, args, kwargs))

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Make the call in another thread; `asyncio.wrap_future` makes the future awaitable.

        A future can be cancelled until its call starts.
        """
        return self.package.executor().submit(self, *args, **kwargs)

    def __reduce__(self) -> str:
        return self._qualname  # by name, like any function

    def __repr__(self) -> str:
        return f"<isolated function {self._module}.{self._qualname} of package {self.package.name!r}>"
