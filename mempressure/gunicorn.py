"""gunicorn's workers managed from its configuration file, as `mempressure run --manage` does it from outside.

In `gunicorn.conf.py`:

    import mempressure.gunicorn

    mempressure.gunicorn.share()  # if workers are to share memory as well; see docs/sharing.md

The hooks that the file defines itself, such as `pre_fork`, stay as they are.
"""

import gunicorn.arbiter

from mempressure.hooks import management
from mempressure.hooks.gunicorn import install

_shared = False


def share() -> None:
    """Have the workers share what is loaded before they are forked, as `MEMPRESSURE_SHARE=true` does."""
    global _shared  # noqa: PLW0603 -- said once, in a configuration file
    _shared = True


install(gunicorn.arbiter, begin=management.begin, share=lambda: _shared or management.may_share())
