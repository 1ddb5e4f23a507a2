"""Functions that test_loader declares isolated; the loader is the one that the test made, or the host's own."""

import os

from mempressure import get_lazy_loader

loader = get_lazy_loader()


@loader.isolated("decimal", timeout=5.0, allow_imported=True)
def doubled(value):
    import decimal

    return int(decimal.Decimal(value) * 2), os.getpid()


@loader.isolated("decimal", timeout=5.0, allow_imported=True)
def loader_state():
    """Return whether the loader in the host has an agent."""
    return get_lazy_loader()._bootstrap.worker is not None
