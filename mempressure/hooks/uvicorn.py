"""uvicorn's hooks: management begins in each process that serves, before it loads the application."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mempressure.hooks.sharing import refuse

_installed = False


def install(server: ModuleType, *, begin: Callable[[], None], share: Callable[[], bool]) -> None:
    """Wrap the class of servers; once.

    Args:
        server: the module `uvicorn.server`.
        begin: begins to manage this process.
        share: returns whether workers are to share memory, which uvicorn's cannot: that is then said.
    """
    global _installed  # noqa: PLW0603 -- a class is wrapped once
    if _installed:
        return
    _installed = True
    kind: Any = server.Server
    serve = kind.serve

    async def managed_serve(self: Any, *args: Any, **kwargs: Any) -> Any:
        # As gunicorn's worker class it may share; then the arbiter's hooks see to it.
        if "gunicorn.arbiter" not in sys.modules and share():
            refuse(
                "uvicorn starts each as a new process, by spawn; run it under gunicorn "
                "(--worker-class uvicorn_worker.UvicornWorker)"
            )
        begin()
        return await serve(self, *args, **kwargs)

    kind.serve = managed_serve
