import copyreg
import importlib
import multiprocessing.reduction
import pickle
import sys
import typing
import warnings

import pytest

from mempressure.errors import EvictionRefusedError
from mempressure.eviction import evict
from mempressure.eviction.registries import registrations_of

SOURCE = """
import copyreg, typing, warnings
from multiprocessing.reduction import ForkingPickler

class Warned(UserWarning): pass
class Kept: pass
class Sent: pass

def remake(): return Kept()
def reduce(kept): return remake, ()
copyreg.pickle(Kept, reduce)
ForkingPickler.register(Sent, lambda sent: (Sent, ()))
warnings.simplefilter("once", Warned)

@typing.overload
def f(x: int) -> int: ...
@typing.overload
def f(x: str) -> str: ...
def f(x): return x

ALIAS = typing.Union[Kept, None]
def warn(): warnings.warn("told", Warned, stacklevel=2)
"""


@pytest.fixture
def registering(evictable, tmp_path):
    """A loaded package with entries in each registry; the warning filters are as before in the end."""
    (tmp_path / evictable / "registering.py").write_text(SOURCE)
    importlib.invalidate_caches()
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        for registry in (copyreg.dispatch_table, multiprocessing.reduction.ForkingPickler._extra_reducers):
            patch.setitem(registry, object, None)  # so that the rest is as before in the end
            patch.delitem(registry, object)
        yield importlib.import_module("evictable.registering")
    for registry in (copyreg.dispatch_table, multiprocessing.reduction.ForkingPickler._extra_reducers):
        for key in [key for key in registry if key.__module__.startswith(evictable)]:
            del registry[key]
    typing.clear_overloads()


def entries():
    names = [getattr(key, "__qualname__", key) for key in copyreg.dispatch_table]
    names += [key.__qualname__ for key in multiprocessing.reduction.ForkingPickler._extra_reducers]
    names += [entry[2].__qualname__ for entry in warnings.filters]
    return names + [name for name in typing._overload_registry if name.startswith("evictable")]


def test_entries_of_the_package_are_no_pins_and_come_back_with_it(registering, evictable):
    before = entries()
    evict(evictable)
    gone = [name for name in before if name not in entries()]
    assert sorted(gone) == ["Kept", "Sent", "Warned", "evictable.registering"]
    assert len(typing.get_overloads(registering.f)) == 2
    assert sorted(map(str, entries())) == sorted(map(str, before))
    kept = pickle.loads(pickle.dumps(registering.Kept()))  # noqa: S301 - our own bytes
    assert type(kept) is registering.Kept


def test_a_refused_package_keeps_its_entries(registering, evictable):
    held = registering.remake
    before = entries(), list(warnings.filters), dict(copyreg.dispatch_table)
    with pytest.raises(EvictionRefusedError):
        evict(evictable)
    assert (entries(), list(warnings.filters), dict(copyreg.dispatch_table)) == before
    assert held.__module__ == "evictable.registering"


def test_warnings_that_were_shown_are_no_pins(registering, evictable):
    with pytest.warns(registering.Warned):
        registering.warn()
    seen = sys.modules[__name__].__dict__.setdefault("__warningregistry__", {})
    seen["told", registering.Warned, 1] = True
    evict(evictable)
    assert ("told", 1) not in [(key[0], key[2]) for key in seen if isinstance(key, tuple) and len(key) == 3]
    assert registering.Kept


def test_a_filter_that_the_application_set_on_a_class_of_the_package_is_set_again(registering, evictable):
    warnings.filterwarnings("ignore", message="a detail", category=registering.Warned, module="shop")
    (at,) = [at for at, entry in enumerate(warnings.filters) if entry[2] is registering.Warned and entry[1]]
    action, message, _, module, line = warnings.filters[at]
    del _
    evict(evictable)
    assert not [entry for entry in warnings.filters if entry[2].__qualname__ == "Warned"]
    assert registering.Warned
    filters = [entry for entry in warnings.filters if entry[2] is registering.Warned]
    assert (action, message, registering.Warned, module, line) in filters
    assert len(filters) == 2


def test_nothing_of_other_packages_is_found(registering):
    found = registrations_of("json")
    assert (found.registries, found.entries, found.keys, found.filters) == ([], [], [], [])
