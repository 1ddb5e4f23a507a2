"""What the library costs a real worker, with bounds far enough above what was measured to fail for a change only."""

from benchmarks.footprint import one_round

KIB = 1 << 10
MOST_AGENT_KIB = 1200
"""Measured: 890 to 950."""
MOST_ISOLATED_KIB = 1800
"""Measured: 1290 to 1360; up to 1690 where much else runs."""


def test_a_flask_worker_grows_by_little():
    one_round()  # compiles what is not compiled yet, which leaves its traces
    sizes, modules = one_round()
    assert (sizes["agent"] - sizes["plain"]) // KIB < MOST_AGENT_KIB
    assert (sizes["isolated"] - sizes["plain"]) // KIB < MOST_ISOLATED_KIB
    assert "psutil" not in modules
