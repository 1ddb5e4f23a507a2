from hypothesis import given
from hypothesis import strategies as st

from mempressure_exporter.exposition import Exposition
from mempressure_exporter.families import FAMILIES
from mempressure_exporter.package_series import PACKAGE_FAMILIES, Package

WORKER = ("shop", "pid:[1]", 1, 7)
held = st.tuples(
    st.booleans(),
    st.floats(-1, 1e12),
    st.sampled_from(["process", "import"]),
    st.floats(-1, 2e9),
    st.sampled_from(["", "stop", "evict", "recycle"]),
)
counts = st.tuples(*[st.floats(0, 1e9)] * 5)
steps = st.lists(st.tuples(st.dictionaries(st.integers(1, 3), held), st.sampled_from(["stop", "evict"]), counts))


@given(st.text(min_size=1, max_size=5), steps)
def test_whatever_changes_it_prints_what_the_exposition_would(name, steps):
    """Lines are kept, or only their numbers written anew: never is one left that tells what was."""
    package, exposition, before = Package("a b", name), Exposition(FAMILIES), (0.0,) * 5
    for holders, mechanism, now in steps:
        package.holders = {(*WORKER[:2], pid, 7): holding for pid, holding in holders.items()}
        package.totals.add(mechanism, before, now)
        before = now
        package.update()
        samples = [
            (family.name, ("a b", name, *filter(None, [label])), value)
            for family, values in zip(PACKAGE_FAMILIES, package.values, strict=True)
            for label, value in values
        ]
        printed = exposition.render(samples).decode()
        assert "".join(package.texts) == "".join(
            f"{line}\n" for line in printed.split("\n") if line and not line.startswith("# ")
        )
        assert package.series == len(samples)


def test_a_package_that_nobody_holds_tells_what_was_counted_only():
    package = Package("shop", "pandas")
    package.update()
    assert [family.name for family, text in zip(PACKAGE_FAMILIES, package.texts, strict=True) if text] == [
        "mempressure_package_loads_total",
        "mempressure_package_refaults_total",
        "mempressure_package_load_seconds_total",
    ]
