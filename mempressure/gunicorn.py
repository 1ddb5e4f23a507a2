"""gunicorn's workers managed from its configuration file, as `mempressure run --manage` does it from outside.

In `gunicorn.conf.py`:

    import mempressure.gunicorn

    mempressure.gunicorn.share()  # if workers are to share memory as well; see docs/sharing.md

The hooks that the file defines itself, such as `pre_fork`, stay as they are.
"""

import gunicorn.arbiter

from mempressure.hooks import management
from mempressure.hooks.gunicorn import install

share = management.share

install(gunicorn.arbiter, begin=management.begin, share=management.may_share, prepare=management.prepare)
