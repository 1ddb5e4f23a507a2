"""Management of an unchanged application: what `mempressure run --manage` begins in each of its Python processes.

Nothing happens before a server is imported. Then its hooks make the lazy loader, where the server's supervisor or a
worker of it starts: the loader's agent runs in the workers, every third-party package that they import is measured, and
the control loop runs in one of them while no actuator answers.
"""

import atexit
import os
from contextlib import suppress
from types import ModuleType

from mempressure.config.configuration import MANAGED, MANAGED_PID
from mempressure.hooks.notice import say
from mempressure.hooks.server_imports import ServerImports
from mempressure.package_process import identity

_sharing_asked_for = False


def watch_for_servers() -> None:
    """Manage this process where it turns out to run a server's supervisor or worker, if it was started for that."""
    if MANAGED not in os.environ or identity.packages() is not None:
        return
    installs = {
        "gunicorn.arbiter": _install_gunicorn,
        "uvicorn.server": _install_uvicorn,
        "celery.apps.worker": _install_celery,
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
        say(f"process {os.getpid()} is not managed: {error}")


def prepare() -> None:
    """Load what this process' workers need to be managed: frozen with the rest, no collection makes them copy it."""
    from mempressure import get_lazy_loader
    from mempressure.errors import ConfigurationError

    with suppress(ConfigurationError):  # `begin` has said it
        get_lazy_loader().before_fork()


def share() -> None:
    """Have this process' workers share what is loaded before they are forked, as `MEMPRESSURE_SHARE=true` does."""
    global _sharing_asked_for  # noqa: PLW0603 -- said once, in a configuration file
    _sharing_asked_for = True


def may_share() -> bool:
    """Return whether workers are to share what is loaded before they are forked: by the settings, or `share`."""
    from mempressure.config.configuration import load_configuration
    from mempressure.errors import ConfigurationError

    try:
        return _sharing_asked_for or load_configuration().share
    except ConfigurationError:  # `begin` has said it
        return False


def _install_gunicorn(arbiter: ModuleType) -> None:
    from mempressure.hooks import gunicorn

    gunicorn.install(arbiter, begin=begin, share=may_share, prepare=prepare)


def _install_uvicorn(server: ModuleType) -> None:
    from mempressure.hooks import uvicorn

    uvicorn.install(server, begin=begin, share=may_share)


def _install_celery(_worker: ModuleType) -> None:
    from mempressure.hooks import celery

    celery.install(begin=begin, share=may_share, prepare=prepare)


def _not_managed(name: str, error: Exception) -> None:
    say(f"process {os.getpid()} runs {name.partition('.')[0]} and is not managed: {error}")


def _say_where_nothing_was_managed(imports: ServerImports) -> None:
    if os.environ.get(MANAGED_PID) == str(os.getpid()) and not imports.installed:
        say(f"process {os.getpid()} has run no gunicorn, uvicorn or Celery itself: nothing in it was managed")
