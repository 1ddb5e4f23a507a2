"""Celery's children managed from the module that makes the app, as `mempressure run --manage` does it from outside.

import mempressure.celery

mempressure.celery.share()  # if children are to share memory as well; see docs/sharing.md
"""

from mempressure.hooks import management
from mempressure.hooks.celery import install

_shared = False


def share() -> None:
    """Have the children share what is loaded before they are forked, as `MEMPRESSURE_SHARE=true` does."""
    global _shared  # noqa: PLW0603 -- said once, where the app is made
    _shared = True


install(begin=management.begin, share=lambda: _shared or management.may_share())
