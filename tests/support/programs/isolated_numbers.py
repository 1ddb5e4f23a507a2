"""Functions isolated in NumPy and pandas whose answers are known."""

import os
import time

from mempressure import get_lazy_loader

loader = get_lazy_loader()


@loader.isolated("numpy")
def squares(number):
    """Return the sum of the squares below a number."""
    import numpy as np

    # More than is asked for, to take a millisecond: a stop that does not wait for a call is to hit one.
    return int((np.arange(500_000, dtype="i8") ** 2)[:number].sum())


@loader.isolated("pandas")
def groups(number):
    """Return the sums of the numbers below a number, by their remainder modulo 3; there must be three."""
    import pandas as pd

    numbers = pd.Series(range(number))
    return [int(total) for total in numbers.groupby(numbers % 3).sum()]


def echo(value):
    """Return what was sent."""
    return value


@loader.isolated("numpy")
def wait(begun, go):
    """Say on the file system that the call has begun, and in which worker, and wait for another file."""
    with open(f"{begun}.part", "w") as file:
        file.write(str(os.getppid()))
    os.rename(f"{begun}.part", begun)
    while not os.path.exists(go):
        time.sleep(0.005)
