"""Management of an unchanged application: what `mempressure run --manage` begins in each of its Python processes.

Nothing happens before a server is imported. Then its hooks make the lazy loader, where the server's supervisor or a
worker of it starts: the loader's agent runs in the workers, every third-party package that they import is measured, and
the control loop runs in one of them while no actuator answers.
"""

import atexit
import os
import sys
from types import ModuleType

from mempressure.config.configuration import MANAGED, MANAGED_PID, PACKAGE_PROCESS_VARIABLE
from mempressure.hooks.server_imports import ServerImports


def watch_for_servers() -> None:
    """Manage this process where it turns out to run a server's supervisor or worker, if it was started for that."""
    if MANAGED not in os.environ or PACKAGE_PROCESS_VARIABLE in os.environ:
        return
    installs = {
        "gunicorn.arbiter": _install_gunicorn,
        "uvicorn.server": _install_uvicorn,
        "celery.bin.celery": _install_celery,
    }
    imports = ServerImports(installs, on_problem=_not_managed)
    imports.watch()
    if os.environ.get(MANAGED_PID) == str(os.getpid()):
        atexit.register(_say_where_nothing_was_managed, imports)


def begin() -> None:
    """Make the lazy loader, measure imports from now on, and run the control loop where no actuator answers."""
    from mempressure import get_lazy_loader

    try:
        loader = get_lazy_loader()
        loader.track_imports()
        loader.start()
    except Exception as error:  # noqa: BLE001 -- such as a setting that cannot be used: the application is not to suffer
        sys.stderr.write(f"mempressure: process {os.getpid()} is not managed: {error}\n")


def may_share() -> bool:
    """Return whether workers are to share what is loaded before they are forked, by the settings."""
    from mempressure.config.configuration import load_configuration

    return load_configuration().share


def _install_gunicorn(arbiter: ModuleType) -> None:
    from mempressure.hooks import gunicorn

    gunicorn.install(arbiter, begin=begin, share=may_share)


def _install_uvicorn(server: ModuleType) -> None:
    from mempressure.hooks import uvicorn

    uvicorn.install(server, begin=begin, share=may_share)


def _install_celery(_command: ModuleType) -> None:
    from mempressure.hooks import celery

    celery.install(begin=begin, share=may_share)


def _not_managed(name: str, error: Exception) -> None:
    sys.stderr.write(f"mempressure: process {os.getpid()} runs {name.partition('.')[0]} and is not managed: {error}\n")


def _say_where_nothing_was_managed(imports: ServerImports) -> None:
    if os.environ.get(MANAGED_PID) == str(os.getpid()) and not imports.installed:
        sys.stderr.write("mempressure: no gunicorn, uvicorn or Celery was started here: nothing was managed\n")
