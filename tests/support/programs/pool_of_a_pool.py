"""A pool whose process has a pool of its own, for tests of what such processes know of themselves."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def apply(function: Callable[[], Any]) -> Any:
    """Return what `function` returns in a process that a pool's process started."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_apply_below, function).result()


def _apply_below(function: Callable[[], Any]) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function)
