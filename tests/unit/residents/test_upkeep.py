"""The upkeep of residents: idle ones are let go, warm ones loaded again."""

import pytest

from mempressure.decide.admission import ScopeMemory
from mempressure.residents.upkeep import Upkeep
from tests.support.waiting import until


class Place:
    """A worker with one resident, in a host of 1000 bytes of which `used` are used."""

    def __init__(self, unit, clock):
        self.unit, self.clock = unit, clock
        self.used, self.kept, self.measured = 0, set(), 0
        self.upkeep = Upkeep(
            {unit.name: unit},
            is_kept=lambda name, declared: declared or name in self.kept,
            limit=lambda: 0.75,
            scopes=self.scopes,
            clock=clock,
        )

    def scopes(self):
        self.measured += 1
        return [ScopeMemory("the host", 1000, self.used)]

    def after(self, seconds):
        """Let time pass, and tick."""
        self.clock.now += seconds
        self.upkeep.tick()


@pytest.fixture
def place(resident, clock):
    return lambda **options: Place(resident(**options), clock)


def test_what_is_idle_is_let_go(place):
    shop = place()
    shop.unit()
    shop.after(299)
    assert shop.unit.loaded
    shop.after(1)
    assert not shop.unit.loaded
    assert shop.measured == 0


@pytest.mark.parametrize("options", [{"keep_loaded": True}, {"warm": True}])
def test_what_is_to_stay_or_to_be_warm_goes_under_pressure_only(place, options):
    shop = place(**options)
    shop.unit()
    shop.after(10_000)
    assert shop.unit.loaded


def test_what_the_operator_prefers_to_keep_stays(place):
    shop = place()
    shop.kept.add("shop.model")
    shop.unit()
    shop.after(10_000)
    assert shop.unit.loaded


def warmed(shop, *, used=True, size=0):
    """Use a warm resident and have it let go; let it be as long ago as it must."""
    shop.unit()
    shop.upkeep.tick()
    if not used:
        shop.after(3600)  # an hour without use
    assert shop.unit.release().skipped_reason is None
    shop.unit.size_bytes = size
    shop.after(61)
    return shop


def test_what_is_warm_is_loaded_again_once_there_is_room(place):
    shop = place(warm=True)
    shop.used = 700
    warmed(shop, size=300)
    assert (shop.unit.loaded, shop.measured) == (False, 1)
    shop.used = 100
    shop.after(1)
    assert (shop.unit.loaded, shop.measured) == (False, 1), "measured every five seconds only"
    shop.after(5)
    until(lambda: shop.unit.loaded, "the load in the background")
    assert (shop.unit.uses, shop.unit.refaults) == (1, 0)


def test_what_was_not_used_in_most_hours_is_not(place):
    shop = warmed(place(warm=True), used=False)
    shop.after(10)
    assert (shop.unit.loaded, shop.measured) == (False, 0)


def test_a_load_in_the_background_that_fails_is_logged_and_left_to_the_next_call(place, caplog):
    answers = [object(), OSError("gone"), object()]

    def load():
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    shop = warmed(place(function=load, warm=True))
    until(lambda: "not loaded in the background: OSError('gone')" in caplog.text, "the failure")
    assert shop.unit.problems == 1
    shop.after(100)
    assert (len(answers), shop.unit.loaded) == (1, False)
    assert shop.unit()
