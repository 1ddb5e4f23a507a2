"""Celery's hooks: management begins in a worker's main process, and its children share what it has loaded."""

import sys
from collections.abc import Callable
from typing import Any

from mempressure.hooks.sharing import freeze, refuse

_UID = "mempressure.hooks"


def install(
    *, begin: Callable[[], None], share: Callable[[], bool], prepare: Callable[[], None] = lambda: None
) -> None:
    """Connect to Celery's signals; a second time changes nothing.

    Args:
        begin: begins to manage this process and its children.
        share: returns whether children are to share what is loaded before they are forked.
        prepare: loads what workers need to be managed; called before what they share is frozen.
    """
    from celery import signals  # loaded already where this is called

    def begin_in_worker(*, instance: Any, **_: Any) -> None:
        begin()
        if not share():
            return
        if reason := reason_not_to_freeze(instance.pool_cls):
            refuse(reason)
            return
        prepare()
        freeze()
        # Only a pool with an event loop sends it; until then there is little more to freeze.
        signals.worker_before_create_process.connect(freeze_before_fork, weak=False, dispatch_uid=_UID)

    def freeze_before_fork(**_: Any) -> None:
        prepare()
        freeze()

    # Sent in the main process, when tasks are imported and the pool is chosen, and no child has been made.
    signals.celeryd_after_setup.connect(begin_in_worker, weak=False, dispatch_uid=_UID)


def reason_not_to_freeze(pool: type) -> str:
    """Return why what is loaded is of no use to children of this Celery pool; empty where it is."""
    if all(kind.__module__ != "celery.concurrency.prefork" for kind in pool.__mro__):
        return f"Celery's {pool.__module__.rpartition('.')[2]} pool forks no children"
    if sys.modules["billiard"].get_start_method() != "fork":
        return "Celery does not fork its children here"
    return ""
