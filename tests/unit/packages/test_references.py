import sys
from types import ModuleType, SimpleNamespace

import pytest

from mempressure.packages.attribution import references


class Trap(ModuleType):
    """A module that must not be woken: whatever is read of it, and be it its class, fails the test."""

    def __getattribute__(self, name):
        raise AssertionError(f"{name} was read")


class Proxy:
    """An object that pretends to be something else, as lazy proxies do."""

    @property
    def __class__(self):
        raise AssertionError("it was asked for its class")

    def __getattr__(self, name):
        raise AssertionError(f"{name} was read")


Proxy.__module__ = "proxies"


class Meta(type):
    def __getattribute__(cls, name):
        raise AssertionError(f"{name} was read")


def module(name, **content):
    made = ModuleType(name)
    vars(made).update(content)
    return made


def function():
    """Stands for a function of numpy."""


function.__module__ = "numpy.core"
Array = type("Array", (), {"__module__": "numpy.core"})


def found(*modules, tracked=("numpy", "pandas", "proxies"), owners=None):
    names = dict.fromkeys(tracked, None) | (owners or {})
    return references(
        {ModuleType.__getattribute__(module, "__name__"): module for module in modules},
        owner=lambda top: names[top] or top if top in names else "",
        tracked=tracked,
    )


@pytest.mark.parametrize(
    "value",
    [
        module("numpy"),
        module("numpy.linalg"),
        function,
        Array,
        Array(),
    ],
)
def test_whatever_comes_from_a_tracked_package_refers_to_it(value):
    assert found(module("pandas.core", x=value)) == {"pandas": {"numpy"}}


def test_real_modules_functions_and_classes():
    import decimal
    import json

    own = module("pandas", a=json, b=json.dumps, c=decimal.Decimal(1), d=sys.intern, e=len)
    tracked = ("pandas", "json", "decimal", "sys")
    assert found(own, tracked=tracked) == {"pandas": {"json", "decimal", "sys"}}


def test_plain_data_and_a_packages_own_modules_refer_to_nothing():
    own = module("pandas", a=1, b="numpy", c={"numpy": function}, d=[Array], e=None, f=module("pandas.core"))
    assert found(own) == {}


def test_what_is_not_tracked_counts_for_whom_its_owner_is():
    untracked = module("dateutil", np=module("numpy"), pandas=module("pandas"))
    assert found(untracked) == {"": {"numpy", "pandas"}}
    assert found(untracked, owners={"dateutil": "pandas"}) == {"pandas": {"numpy"}}


def test_lazy_modules_and_proxies_are_left_asleep():
    lazy, odd = Trap("numpy.lazy"), Meta("Odd", (), {"__module__": "numpy"})
    assert found(module("pandas", lazy=lazy, proxy=Proxy(), odd=odd), lazy) == {"pandas": {"numpy", "proxies"}}


def test_what_is_no_module_is_passed_over():
    assert (
        references(
            {"pandas": SimpleNamespace(np=module("numpy")), "x": None, "y": Proxy()}, owner=str, tracked={"numpy"}
        )
        == {}
    )


def test_the_modules_of_this_process():
    """Whatever is loaded here, nothing raises and nobody refers to itself."""
    tops = {name.partition(".")[0] for name in sys.modules}
    for owner, others in references(sys.modules, owner=str, tracked=tops).items():
        assert owner not in others
    assert "pytest" in references(sys.modules, owner=str, tracked=tops)["tests"]
