import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.packages.attribution import freed_if_removed

SIZES = {"sklearn": 19, "scipy": 54, "pandas": 28, "numpy": 18}
IMPORTS = {"sklearn": ["scipy", "pandas", "numpy"], "scipy": ["numpy"], "pandas": ["numpy"]}


@pytest.mark.parametrize(
    ("roots", "freed"),
    [
        # Only scikit-learn is used: all goes with it; what scipy and pandas share counts for neither of them.
        (["sklearn"], {"sklearn": 119, "scipy": 54, "pandas": 28, "numpy": 18}),
        # pandas is used besides: it stays, and numpy with it.
        (["sklearn", "pandas"], {"sklearn": 73, "scipy": 54, "pandas": 28, "numpy": 18}),
        (["sklearn", "numpy"], {"sklearn": 101, "scipy": 54, "pandas": 28, "numpy": 18}),
        # Nobody is known to use any: the one that no package imports is somebody's.
        ([], {"sklearn": 119, "scipy": 54, "pandas": 28, "numpy": 18}),
    ],
)
def test_a_shared_dependency_counts_for_nobody(roots, freed):
    assert freed_if_removed(SIZES, IMPORTS, roots=roots) == freed


def test_a_chain_counts_for_each_that_leads_to_the_rest():
    sizes = {"a": 1, "b": 2, "c": 4}
    assert freed_if_removed(sizes, {"a": ["b"], "b": ["c"]}, roots=["a"]) == {"a": 7, "b": 6, "c": 4}


def test_what_only_a_circle_leads_to_counts_for_itself():
    sizes = {"a": 1, "b": 2, "c": 4}
    assert freed_if_removed(sizes, {"a": ["b"], "b": ["a", "c"]}, roots=[]) == sizes


def test_a_circle_behind_a_root_goes_with_it():
    sizes = {"a": 1, "b": 2, "c": 4}
    assert freed_if_removed(sizes, {"a": ["b"], "b": ["c"], "c": ["b"]}, roots=["a"]) == {"a": 7, "b": 6, "c": 4}


def test_what_is_not_loaded_is_passed_over():
    assert freed_if_removed({"a": 1}, {"a": ["gone", "a"], "other": ["a"]}, roots=["other"]) == {"a": 1}


def reachable(imports, roots):
    found, waiting = set(), list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports[name]
    return found


names = st.sampled_from("abcdefgh")


@given(
    st.dictionaries(names, st.integers(0, 100)),
    st.dictionaries(names, st.sets(names), max_size=8),
    st.sets(names),
)
def test_it_is_what_cannot_be_reached_any_more_once_the_package_is_gone(sizes, imports, roots):
    """The definition, by brute force: take the package away and see what no root leads to any more."""
    known = {name: {other for other in imports.get(name, ()) if other in sizes} for name in sizes}
    importers = {name: [other for other in sizes if other != name and name in known[other]] for name in sizes}
    roots_there = {name for name in sizes if name in roots or not importers[name]}
    roots_there |= set(sizes) - reachable(known, roots_there)
    for name, freed in freed_if_removed(sizes, imports, roots=roots).items():
        without = {other: known[other] - {name} for other in sizes if other != name}
        left = reachable(without, roots_there - {name})
        assert freed == sum(size for other, size in sizes.items() if other not in left)
