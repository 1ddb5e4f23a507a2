"""What the library costs a real worker, with bounds far enough above what was measured to fail for a change only."""

from benchmarks.footprint import one_round

KIB = 1 << 10
MOST_AGENT_KIB = 900
"""Measured: 670 to 790, on a busy machine."""
MOST_ISOLATED_KIB = 1400
"""Measured: 1120 to 1240, on a busy machine."""


def test_a_flask_worker_grows_by_little():
    one_round()  # compiles what is not compiled yet, which leaves its traces
    sizes, modules = one_round()
    assert (sizes["agent"] - sizes["plain"]) // KIB < MOST_AGENT_KIB
    assert (sizes["isolated"] - sizes["plain"]) // KIB < MOST_ISOLATED_KIB
    assert "psutil" not in modules
