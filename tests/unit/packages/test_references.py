import sys
from importlib.machinery import FrozenImporter, ModuleSpec
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
    made.__file__ = f"/srv/{name}.py"
    vars(made).update(content)
    return made


def function():
    """Stands for a function of numpy."""


function.__module__ = "numpy.core"
Array = type("Array", (), {"__module__": "numpy.core"})


def found(*modules, tracked=("numpy", "pandas", "proxies"), owners=None):
    return found_in({ModuleType.__getattribute__(module, "__name__"): module for module in modules}, tracked, owners)


def found_in(modules, tracked=("numpy", "pandas"), owners=None):
    names = dict.fromkeys(tracked, None) | (owners or {})
    return references(
        modules,
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


def made_in_memory(name, *, loader=None, spec=True, kind=ModuleType):
    """A module without a file that holds numpy, as packages make them at run time."""
    made = kind(name)
    made.__spec__ = ModuleSpec(name, loader, origin="made") if spec else None
    made.np = module("numpy")
    return made


class TextLoader:
    """Stands for a loader of pandas' own, as torch has one for modules that it writes as text."""


class OddModule(ModuleType):
    """Stands for a class of modules of pandas' own."""


TextLoader.__module__, OddModule.__module__ = "pandas.text", "pandas.odd"


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        # A package's own loader, or class of modules, tells whose a module without a file is.
        ({"_written": made_in_memory("_written", loader=TextLoader())}, {"pandas": {"numpy"}}),
        ({"_odd": made_in_memory("_odd", kind=OddModule, spec=False)}, {"pandas": {"numpy"}}),
        # Without a file and a spec nothing is known of it, and it makes no package one of the application's.
        ({"_made": made_in_memory("_made", spec=False)}, {}),
        # A frozen application, a script and one given by -c have no file, and are the application all the same.
        ({"shop": made_in_memory("shop", loader=FrozenImporter)}, {"": {"numpy"}}),
        ({"__main__": made_in_memory("__main__", spec=False)}, {"": {"numpy"}}),
        # An extension that is there by its last name too.
        ({"_sparse": module("pandas.core._sparse", np=module("numpy"))}, {"pandas": {"numpy"}}),
        # Packages replace functions of the standard library.
        ({"inspect": module("inspect", getfile=function)}, {}),
        ({"os.path": module("posixpath", join=function)}, {}),
    ],
)
def test_what_is_not_the_applications_makes_no_package_one_that_it_uses(modules, expected):
    assert found_in(modules) == expected


def test_functions_of_cython_are_their_packages():
    kind = type("cython_function_or_method", (), {"__module__": "_cython_3_1_0"})
    compiled = kind()
    compiled.__module__ = "numpy.random"
    assert found(module("pandas.core", f=compiled)) == {"pandas": {"numpy"}}


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
