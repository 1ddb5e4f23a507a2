"""Functions by the names of their declaration, whatever is bound to those names."""

import functools
import pickle
import sys
import types

import pytest

from mempressure.errors import IsolationError
from mempressure.package_process import functions, identity
from mempressure.package_process.functions import FunctionInside, declare, declared

NAME = "a_module_of_functions"


@pytest.fixture
def module(monkeypatch):
    module = types.ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, module)
    monkeypatch.setattr(functions, "_declared", {})
    return module


@pytest.fixture
def define(module):
    def define(code):
        exec(code, module.__dict__)  # noqa: S102 - a module of this test
        return module

    return define


@pytest.fixture
def inside(monkeypatch):
    """Have this process take itself for a package process."""

    def inside(*packages):
        monkeypatch.setattr(identity, "_known", True)
        monkeypatch.setattr(identity, "_packages", packages)

    return inside


def test_a_plain_function_is_found_by_its_name(define):
    define("def work(): return 1")
    assert declared(NAME, "work", NAME)() == 1
    assert declared("posixpath", "basename", "posixpath")("/a/b") == "b"
    assert declared("math", "sqrt", "math")(4.0) == 2.0


def test_what_was_declared_is_found_whatever_its_name_is_bound_to(define):
    module = define("def work(): return 'body'")
    declare(NAME, "work", module.work)
    module.work = "something else"
    assert declared(NAME, "work", NAME)() == "body"


@pytest.mark.parametrize(
    "decorate",
    [
        functools.lru_cache,
        functools.partial,
        lambda function: functools.wraps(function)(lambda *args: [function(*args)]),
        lambda function: types.SimpleNamespace(delay=function),
        lambda function: None,
    ],
)
def test_a_name_that_is_bound_to_something_else_is_refused(define, decorate):
    module = define("def work(): return 1")
    module.work = decorate(module.work)
    with pytest.raises(LookupError, match=f"neither module '{NAME}' nor '{NAME}' declares 'work'"):
        declared(NAME, "work", NAME)


def test_the_declaring_module_is_imported_where_the_defining_one_does_not_declare(define, tmp_path, monkeypatch):
    define("def work(): return 1\nwork = 'bound to something else'")
    (tmp_path / "a_declaring_module.py").write_text(
        "from mempressure.package_process.functions import declare\n"
        f"declare({NAME!r}, 'work', lambda: 'declared elsewhere')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert declared(NAME, "work", "a_declaring_module")() == "declared elsewhere"
    sys.modules.pop("a_declaring_module")


def test_of_two_with_one_name_the_last_counts(define):
    module = define("def work(): return 1")
    declare(NAME, "work", module.work)
    declare(NAME, "work", lambda: 2)
    assert declared(NAME, "work", NAME)() == 2


def test_a_module_that_is_not_there_says_so():
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        declared("no_such_module_here", "work", "no_such_module_here")


def test_inside_it_runs_in_place_where_its_packages_live(define, inside):
    work = FunctionInside(define("def work(x):\n    'doc'\n    return x").work, (NAME, "work", NAME), ("pandas",))
    inside("numpy", "pandas")
    assert work(3) == 3
    assert work.submit(4).result() == 4
    assert (work.__name__, work.__qualname__, work.__module__, work.__doc__) == ("work", "work", NAME, "doc")


def test_inside_a_process_of_another_package_it_is_refused_by_name(define, inside):
    work = FunctionInside(define("def work(): pass").work, (NAME, "work", NAME), ("pandas", "numpy"))
    inside("pandas")
    message = rf"{NAME}\.work is isolated in pandas, numpy and was called inside the package process of pandas"
    with pytest.raises(IsolationError, match=message):
        work()
    with pytest.raises(IsolationError, match=message):
        work.submit().result()


def test_inside_it_pickles_by_its_declaration(define, inside):
    work = FunctionInside(define("def work(): return 5").work, (NAME, "work", NAME), ("pandas",))
    assert pickle.loads(pickle.dumps(work))() == 5  # noqa: S301 - our own
    assert declared(NAME, "work", NAME) is work.__wrapped__
