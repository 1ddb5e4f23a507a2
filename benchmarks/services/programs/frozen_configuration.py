"""Configuration of gunicorn under which workers share what the application has loaded, made by hand."""

import gc
from typing import Any

preload_app = True


def pre_fork(_server: Any, _worker: Any) -> None:
    """Have the worker that is forked next leave alone what is loaded, once all garbage is gone."""
    if not gc.get_freeze_count():
        gc.collect()
    gc.freeze()
