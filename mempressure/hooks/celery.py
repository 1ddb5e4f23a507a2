"""Celery's hooks: management begins in a worker's main process, and its children share what it has loaded."""

import sys
from collections.abc import Callable
from typing import Any

from mempressure.hooks.sharing import freeze, refuse

_UID = "mempressure.hooks"


def install(*, begin: Callable[[], None], share: Callable[[], bool]) -> None:
    """Connect to Celery's signals; a second time changes nothing.

    Args:
        begin: begins to manage this process and its children.
        share: returns whether children are to share what is loaded before they are forked.
    """
    from celery import signals  # loaded already where this is called

    def begin_in_worker(**_: Any) -> None:
        begin()

    def freeze_before_fork(**_: Any) -> None:
        if not share():
            return
        if sys.modules["billiard"].get_start_method() != "fork":
            refuse("Celery does not fork its children here")
            return
        freeze()

    # Sent in the main process, when the pool is chosen and no child has been made.
    signals.celeryd_after_setup.connect(begin_in_worker, weak=False, dispatch_uid=_UID)
    signals.worker_before_create_process.connect(freeze_before_fork, weak=False, dispatch_uid=_UID)
