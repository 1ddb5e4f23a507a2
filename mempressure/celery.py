"""Celery's children managed from the module that makes the app, as `mempressure run --manage` does it from outside.

import mempressure.celery

mempressure.celery.share()  # if children are to share memory as well; see docs/sharing.md
"""

from mempressure.hooks import management
from mempressure.hooks.celery import install

share = management.share

install(begin=management.begin, share=management.may_share, prepare=management.prepare)
