from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.config.thresholds import Thresholds, relieved
from mempressure.decide.floor import floor_bytes, reason_out_of_reach
from mempressure.state.node import AppReading, app_memory
from mempressure.state.records import WorkerState
from tests.support.builders.package_states import isolated

MIB = float(1 << 20)
THRESHOLDS = Thresholds()


def worker(*, pid=1, private=240, fresh=200, shared=7, budget=650, **options):
    """A worker with so many MiB for itself and its part of what several share; a budget in MiB."""
    defaults = {
        "supervisor": "gunicorn",
        "supervisor_pid": 7,
        "supervisor_bytes": 80 * MIB,
        "budget_bytes": int(budget * MIB),
    }
    sizes = {"private_bytes": private * MIB, "proportional_bytes": (private + shared) * MIB}
    return WorkerState(
        app="shop",
        pid=pid,
        start_ticks=pid,
        pid_namespace="ns",
        started=0.0,
        baseline_bytes=-1.0 if fresh is None else fresh * MIB,
        **(defaults | sizes | options),
    )


def shop(*workers):
    return AppReading("shop", 1000, Path("/none"), workers, app_memory(workers))


def limited(limit, used, **options):
    return {"cgroup_limit_bytes": limit * MIB, "cgroup_working_set_bytes": used * MIB, "budget": 0, **options}


WAYS = "raise it above 660 MiB, run one worker less, or share by --share"


@pytest.mark.parametrize(
    ("workers", "reason"),
    [
        # 2 x (240 + 7) + 80 are used; less 40 each, 494 of 650.
        ([worker(), worker(pid=2)], f"fresh workers alone take 76 % of the budget; {WAYS}"),
        ([worker(budget=700), worker(pid=2, budget=700)], ""),  # 71 %
        ([worker(budget=400), worker(pid=2, budget=400)], f"fresh workers alone take 124 % of the budget; {WAYS}"),
        # One that has grown no further than a fresh one gives nothing back.
        ([worker(private=150), worker(pid=2, private=282)], ""),
        ([worker(private=200), worker(pid=2, private=300)], f"fresh workers alone take 76 % of the budget; {WAYS}"),
        # Its package processes end with it.
        (
            [worker(budget=370, packages=[isolated(size=500 * MIB)])],
            "fresh workers alone take 78 % of the budget; raise it above 390 MiB",
        ),
        ([worker(fresh=None), worker(pid=2, fresh=None)], ""),
        ([worker(budget=0), worker(pid=2, budget=0)], ""),
        ([], ""),
        # uvicorn's workers are spawned.
        (
            [worker(supervisor="uvicorn"), worker(pid=2, supervisor="uvicorn")],
            "fresh workers alone take 76 % of the budget; raise it above 660 MiB or run one worker less",
        ),
        # What is shared already counts once, for all of them.
        (
            [worker(private=45, fresh=5, shared=202), worker(pid=2, private=45, fresh=5, shared=202)],
            "fresh workers alone take 76 % of the budget; raise it above 660 MiB or run one worker less",
        ),
        (
            [worker(**limited(500, 460)), worker(pid=2, **limited(500, 460))],
            f"fresh workers alone take 76 % of the limit; {WAYS.replace('660', '510')}",
        ),
        ([worker(**limited(500, 450)), worker(pid=2, **limited(500, 450))], ""),  # 370: 74 %
    ],
)
def test_where_fresh_workers_are_too_large_the_reason_has_the_sum_and_what_helps(workers, reason):
    assert reason_out_of_reach(shop(*workers), THRESHOLDS) == reason


@given(
    st.lists(st.tuples(st.integers(0, 500), st.one_of(st.none(), st.integers(0, 500))), max_size=4),
    st.integers(1, 2000),
)
def test_it_is_out_of_reach_exactly_where_the_floor_is_no_relief(sizes, budget):
    app = shop(*(worker(pid=pid, private=a, fresh=b, budget=budget) for pid, (a, b) in enumerate(sizes, start=1)))
    floor = floor_bytes(app)
    reason = reason_out_of_reach(app, THRESHOLDS)
    assert bool(reason) == (floor >= 0 and not relieved(floor / app.memory.total, THRESHOLDS))
    if reason:
        least = int(reason.partition("above ")[2].partition(" MiB")[0])
        assert relieved(floor / (least + 1) / MIB, THRESHOLDS)
