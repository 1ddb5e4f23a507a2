import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.decide.advice import LEAST_BYTES, MOST, advice
from mempressure.measure.reading import UNKNOWN
from mempressure.state.records import ONLY_OBSERVED, PackageState, WorkerState

MIB = 1 << 20
NOW = 1000.0


def package(name, mib, **values):
    options = {"mechanism": "recycle", "source": "import", "timeout": 60.0, "loaded": 1.0, "last_used": NOW - 300}
    sizes = {"memory_bytes": mib * float(MIB), "freed_bytes": mib * float(MIB)}
    if values.pop("late", False):
        values["late_bytes"] = mib * float(MIB)
    return PackageState(name=name, **options | sizes | values)


def worker(pid=1, *packages, private=80, shared=5, **values):
    state = {"app": "shop", "pid": pid, "start_ticks": 1, "pid_namespace": "ns", "started": 0.0, "sampled": NOW}
    sizes = {"proportional_bytes": (private + shared) * float(MIB), "private_bytes": private * float(MIB)}
    return WorkerState(**state | sizes | values, packages=list(packages))


def served(pid=1, *packages, server="gunicorn", private=80, fresh=60, late=0, **values):
    known = {"baseline_bytes": fresh * float(MIB), "late_bytes": late * float(MIB), "recycle_refused": ONLY_OBSERVED}
    run_by = {"supervisor": server, "supervisor_pid": 9, "role": "child" if server == "celery" else "worker"}
    return worker(pid, *packages, private=private, **known | run_by | values)


def found(*workers):
    """Return kind, code, and MiB at rest and at the peak."""
    return [
        (each.kind, each.code, round(each.rest_bytes / MIB), round(each.peak_bytes / MIB))
        for each in advice(workers, now=NOW, command="gunicorn app")
    ]


SHARE = "mempressure run --manage --share -- gunicorn app"
MANAGE = "mempressure run --manage -- gunicorn app"


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        # Superset and wagtail as measured: 569 -> 291 and 199 -> 125.
        (
            [served(1, private=241, fresh=198), served(2, private=241, fresh=198)],
            [("share", SHARE, 205, 79), ("manage", MANAGE, 86, 0)],
        ),
        (
            [served(1, private=85, fresh=72), served(2, private=85, fresh=72)],
            [("share", SHARE, 69, 29), ("manage", MANAGE, 26, 0)],
        ),
        # What is managed already is not to be managed; what shares already has little of its own that is fresh.
        ([served(1, recycle_refused=""), served(2, recycle_refused="")], [("share", SHARE, 36, 24)]),
        ([served(1, private=12, fresh=9, recycle_refused=""), served(2, private=12, fresh=9, recycle_refused="")], []),
        # uvicorn spawns its workers, which share nothing.
        ([served(1, server="uvicorn"), served(2, server="uvicorn")], [("manage", MANAGE, 40, 0)]),
        # One worker has none to share with, and nothing to serve while it is replaced.
        ([served(1)], []),
        # Without the memory of a fresh worker nothing can be predicted.
        ([served(1, baseline_bytes=UNKNOWN), served(2, baseline_bytes=UNKNOWN)], []),
        ([worker(1), worker(2)], []),
    ],
)
def test_what_workers_can_share_and_what_their_replacement_gives_back(workers, expected):
    assert found(*workers) == expected


def test_what_every_worker_imports_late_is_to_be_imported_before_the_fork():
    late = [package("pandas", 40.0, late=True), package("numpy", 20.0, late=True), package("flask", 5.0)]
    both = served(1, *late, private=130, late=60), served(2, *late[:2], private=130, late=60)
    assert ("import", "import pandas, numpy", 36, 24) in found(*both)
    importing = [each.replaced(packages=[late[0].replaced(imports=["numpy"]), late[1]]) for each in both]
    assert ("import", "import pandas", 36, 24) in found(*importing)
    one = served(1, *late, private=130, late=60), served(2, late[1], private=130, late=20)
    assert ("import", "import numpy", 12, 8) in found(*one)
    spawned = [each.replaced(supervisor="uvicorn") for each in both]
    assert "import" not in [kind for kind, *_ in found(*spawned)]


@pytest.mark.parametrize(
    ("packages", "values", "expected"),
    [
        # Loaded by each worker for itself: all of it comes back; at the peak there is one process with a copy.
        ([package("pandas", 80.0)], {"shared": 0}, ("isolate", '@loader.isolated("pandas")', 160, 72)),
        # Shared by the workers since before their fork: there is a copy in either case.
        (
            [package("pandas", 80.0, source="parent", last_used=UNKNOWN)],
            {"private": 10, "fresh": 5, "shared": 60, "last_work": NOW - 300},
            ("isolate", '@loader.isolated("pandas")', 84, -4),
        ),
        (
            [package("pandas", 80.0, source="parent", last_used=UNKNOWN, freed_bytes=UNKNOWN)],
            {"private": 10, "fresh": 5, "shared": 60, "last_work": NOW - 30},
            None,
        ),
        # Imported late it is each worker's own, whatever else they share.
        (
            [package("pandas", 80.0, late=True)],
            {"private": 90, "fresh": 5, "late": 85, "shared": 60},
            ("isolate", '@loader.isolated("pandas")', 160, 72),
        ),
        ([package("pandas", 80.0, last_used=NOW - 30)], {"shared": 0}, None),
        ([package("pandas", 80.0, active_calls=1.0)], {"shared": 0}, None),
        ([package("pandas", 80.0, keep_loaded=True)], {"shared": 0}, None),
        ([package("pandas", 80.0, last_used=UNKNOWN)], {"shared": 0, "last_work": NOW - 300}, None),
        (
            [package("pandas", 80.0, last_used=UNKNOWN, late=True)],
            {"shared": 0, "last_work": NOW - 300},
            ("isolate", '@loader.isolated("pandas")', 160, 72),
        ),
        ([package("pandas", 80.0, last_used=UNKNOWN, late=True)], {"shared": 0}, None),
        ([package("pandas", 80.0, source="process", mechanism="stop")], {"shared": 0}, None),
        ([package("tiny", 4.0)], {"shared": 0}, None),
        # What it leads to comes back with it.
        (
            [package("scipy", 60.0), package("sklearn", 80.0, imports=["scipy"])],
            {"shared": 0},
            ("isolate", '@loader.isolated("sklearn")', 160, 72),
        ),
    ],
)
def test_idle_packages_are_to_be_isolated_unless_that_costs_more(packages, values, expected):
    workers = [served(pid, *packages, **{"fresh": 80} | values) for pid in (1, 2)]
    isolating = [each for each in found(*workers) if each[0] == "isolate"]
    assert isolating == ([expected] if expected else [])


def test_helpers_beside_a_server_are_named_by_their_pids():
    helpers = [worker(pid, private=750, shared=10) for pid in (7, 8)]
    assert found(served(1), *helpers)[0] == ("helpers", "ps -o pid,rss,args -p 7,8", 1520, 1520)
    assert found(*helpers) == []


VALUES = st.one_of(st.just(UNKNOWN), st.integers(0, 1 << 34).map(float))
NAMES = st.sampled_from(["pandas", "numpy", "torch"])
PACKAGES = st.lists(
    st.builds(
        lambda name, mib, used, late: package(name, mib, last_used=used, late=late),
        NAMES,
        st.floats(0, 500),
        st.sampled_from([UNKNOWN, 0.0, NOW]),
        st.booleans(),
    ),
    max_size=3,
    unique_by=lambda each: each.name,
)
WORKERS = st.builds(
    lambda pid, packages, server, **values: worker(pid, *packages, supervisor=server, role="worker", **values),
    st.integers(1, 99),
    PACKAGES,
    st.sampled_from(["", "gunicorn", "celery", "uvicorn"]),
    private=st.integers(0, 500),
    shared=st.integers(0, 500),
    baseline_bytes=VALUES,
    late_bytes=VALUES,
    last_work=VALUES,
    supervisor_pid=st.integers(0, 3),
    recycle_refused=st.sampled_from(["", ONLY_OBSERVED]),
)


@given(st.lists(WORKERS, max_size=5))
def test_advice_is_short_sorted_and_never_promises_more_than_there_is(workers):
    found = advice(workers, now=NOW)
    assert len(found) <= MOST
    weights = [max(each.rest_bytes, each.peak_bytes) for each in found]
    assert weights == sorted(weights, reverse=True)
    assert all(weight >= LEAST_BYTES for weight in weights)
    total = sum(each.proportional_bytes for each in workers)
    assert all(each.rest_bytes <= total for each in found if each.kind in ("share", "manage", "import", "helpers"))
    assert all(each.code for each in found)
