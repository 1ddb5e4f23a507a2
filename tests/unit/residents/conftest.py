"""A resident of one object, with a clock and a measurement of its own."""

import pytest

from mempressure.residents.resident import Resident
from tests.support.doubles.clock import Clock


class Thing:
    """Something large, in the eyes of the tests."""


@pytest.fixture
def clock():
    return Clock(1_000_000.0)


@pytest.fixture
def resident(clock):
    """A builder: of a function, one that makes a `Thing` by default, and options; what is let go gives back 7 bytes."""

    def build(function=Thing, **options):
        def reclaim(dropped, *, expected):
            dropped.clear()
            return 7

        given = {"name": "shop.model", "timeout": 300.0, "clock": clock, "reclaim": reclaim}
        return Resident(function, **given | options)

    return build
