"""gunicorn's hooks: management begins in the arbiter before it forks, and workers share what is loaded before.

The arbiter's methods are wrapped instead of its settings: what the application's own configuration sets, such as
`pre_fork`, stays as it is.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any

from mempressure.config.configuration import NOT_SHARED
from mempressure.hooks.notice import say
from mempressure.hooks.sharing import Footing, freeze, is_check, record, refuse

_PATCHING = ("gunicorn.workers.ggevent", "gunicorn.workers.geventlet")
"""Modules of worker classes that replace parts of the standard library when a worker starts: too late if preloaded."""

_installed = False


def install(
    arbiter: ModuleType,
    *,
    begin: Callable[[], None],
    share: Callable[[], bool],
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Wrap the class of arbiters; once.

    Args:
        arbiter: the module `gunicorn.arbiter`.
        begin: begins to manage the arbiter's process, and so its workers.
        share: returns whether workers are to share what is loaded before they are forked.
        prepare: loads what workers need to be managed; called before what they share is frozen.
    """
    global _installed  # noqa: PLW0603 -- a class is wrapped once
    if _installed:
        return
    _installed = True
    kind: Any = arbiter.Arbiter
    # Taken out, so that a process that this one starts, such as its successor on SIGUSR2, tries again.
    sharing = Preloading(directory=os.getcwd(), refused=os.environ.pop(NOT_SHARED, ""))
    setup, spawn_worker = kind.setup, kind.spawn_worker
    _note_refusals()

    def managed_setup(self: Any, app: Any) -> None:
        begin()
        if share():
            sharing.prepare(app)
        setup(self, app)

    def managed_spawn_worker(self: Any) -> Any:
        if sharing.preloaded:
            prepare()
            freeze()
        return spawn_worker(self)

    kind.setup, kind.spawn_worker = managed_setup, managed_spawn_worker


class Preloading:
    """The loading of an application in the arbiter, before workers are forked.

    Args:
        directory: where the arbiter was started; it is started again there, where the application cannot be shared.
        refused: why the application cannot be shared, where it has been started again for that.

    Attributes:
        preloaded: whether the workers share it.
    """

    def __init__(self, *, directory: str, refused: str = "") -> None:
        self._directory = directory
        self._refused = refused
        self._prepared = False
        self.preloaded = False

    def prepare(self, app: Any) -> None:
        """Have gunicorn preload an application, or say why it is not to be; decided once, before anything is forked."""
        if self._prepared:  # on SIGHUP, whose configuration is a new object
            if self.preloaded:
                app.cfg.set("preload_app", True)
                say("SIGHUP loads no new code where workers share it; send SIGUSR2, or restart")
            return
        self._prepared = True
        reason = self._refused or reason_not_to_preload(app.cfg)
        if reason:
            refuse(reason)
            return
        app.cfg.set("preload_app", True)
        self.preloaded = True
        load = app.load

        def loading() -> Any:
            before = Footing.now()
            try:
                loaded = load()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit too: what a worker would say, it says again
                self._cannot(f"the application cannot be loaded before the fork: {type(error).__name__}: {error}")
                raise
            obstacles = before.obstacles()
            record(obstacles=obstacles)
            if obstacles and not is_check():
                self._start_again(f"while the application was loaded before the fork, {'; '.join(obstacles)}")
            return loaded

        app.load = loading

    def _cannot(self, reason: str) -> None:
        if is_check():
            refuse(reason)
        else:
            self._start_again(reason)

    def _start_again(self, reason: str) -> None:
        """Replace this process by one that does not share: as if it had never been tried."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # a full disk; closed; None
                stream.flush()
        os.chdir(self._directory)
        environ = os.environ | {NOT_SHARED: reason}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606 -- its own command line


def reason_not_to_preload(cfg: Any) -> str:
    """Return why an application with this gunicorn configuration must not be preloaded; empty where it may be."""
    if cfg.reload:
        return "gunicorn runs with --reload, and what is loaded before the fork is not loaded again"
    if any(kind.__module__ in _PATCHING for kind in cfg.worker_class.__mro__):
        return (
            f"gunicorn's {cfg.worker_class_str} workers replace parts of the standard library, too late after a preload"
        )
    if getattr(cfg, _REFUSED, False):
        return "preload_app = False is set in gunicorn's configuration; take it out if the application may be preloaded"
    return ""


_REFUSED = "mempressure_preload_refused"


def _note_refusals() -> None:
    """Note where a configuration says that an application must not be preloaded: the default is no such word."""
    config: Any = import_module("gunicorn.config").Config  # gunicorn imports it next in any case
    put = config.set

    def noting(self: Any, name: str, value: object) -> None:
        if name == "preload_app":
            vars(self)[_REFUSED] = value in (False, None) or str(value).lower() == "false"
        put(self, name, value)

    config.set = noting
