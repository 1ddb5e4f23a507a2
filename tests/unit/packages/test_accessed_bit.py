import importlib
import pickle
import sys
import threading
from types import ModuleType

import pytest

from mempressure.packages.accessed_bit import ArmedModule, arm, disarm, take_used


@pytest.fixture
def module():
    name = "mempressure_test_module"
    module = ModuleType(name)
    module.value = 1
    sys.modules[name] = module
    take_used([name])
    yield module
    disarm(module)
    del sys.modules[name]


def used(module):
    return bool(take_used([module.__name__]))


def test_first_access_is_noted_and_the_module_is_plain_again(module):
    assert arm(module)
    assert type(module) is ArmedModule
    assert module.value == 1
    assert type(module) is ModuleType
    assert used(module)


def test_no_access_is_no_use(module):
    arm(module)
    assert not used(module)


def test_taking_forgets(module):
    arm(module)
    assert module.value
    assert used(module)
    assert not used(module)


@pytest.mark.parametrize("name", ["__name__", "__spec__", "__dict__", "__class__", "__doc__"])
def test_what_scanners_read_is_no_use(module, name):
    arm(module)
    getattr(module, name)
    assert not used(module)
    assert type(module) is ArmedModule


def test_a_missing_attribute_raises_as_ever_and_is_no_use(module):
    arm(module)
    with pytest.raises(AttributeError, match="module 'mempressure_test_module' has no attribute 'missing'"):
        module.missing  # noqa: B018 -- the access is the test
    assert not used(module)


def test_a_modules_own_getattr_still_answers(module):
    module.__getattr__ = lambda name: f"dynamic {name}"
    arm(module)
    assert module.anything == "dynamic anything"
    assert used(module)


def test_from_import_and_reload_work_on_an_armed_module():
    import csv

    arm(csv)
    from csv import reader

    assert callable(reader)
    arm(csv)
    assert importlib.reload(csv) is csv
    disarm(csv)


def test_a_class_of_its_own_is_left_alone():
    class Special(ModuleType):
        @property
        def magic(self):
            return 42

    special = Special("special")
    assert not arm(special)
    assert type(special) is Special
    assert special.magic == 42


def test_extension_and_builtin_modules_can_be_armed():
    import _csv
    import math

    for module in (math, _csv):
        assert arm(module)
        disarm(module)


def test_an_armed_module_pickles_as_its_name(module):
    arm(module)
    assert pickle.loads(pickle.dumps(module)) is module  # noqa: S301 -- what was just dumped


def test_attributes_stay_right_while_many_threads_read_and_one_arms():
    import collections
    import math

    errors = []
    stopping = threading.Event()

    def read():
        while not stopping.is_set():
            if math.sqrt(4.0) != 2.0 or collections.OrderedDict.__name__ != "OrderedDict":
                errors.append("wrong value")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=read) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        hits = 0
        for _ in range(20_000):
            arm(math)
            arm(collections)
            hits += len(take_used(["math", "collections"]))
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
        disarm(math)
        disarm(collections)
    assert not errors
    assert hits
