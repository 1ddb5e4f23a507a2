"""What the library costs a real worker, with bounds far enough above what was measured to fail for a change only."""

from benchmarks.footprint import one_round

KIB = 1 << 10
MOST_AGENT_KIB = 1000
"""Measured: 780 to 880, on a busy machine."""
MOST_ISOLATED_KIB = 2200
"""Measured: 1700 to 2050, on a busy machine."""


def test_a_flask_worker_grows_by_little():
    one_round()  # compiles what is not compiled yet, which leaves its traces
    sizes, modules = one_round()
    assert (sizes["agent"] - sizes["plain"]) // KIB < MOST_AGENT_KIB
    assert (sizes["isolated"] - sizes["plain"]) // KIB < MOST_ISOLATED_KIB
    assert "psutil" not in modules
