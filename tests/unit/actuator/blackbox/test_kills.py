import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempressure.measure.cgroup import Cgroup
from mempressure_actuator.blackbox.kills import Kills, Rise, read_kills, risen


def kills(host=0, unexplained=0, **cgroups):
    return Kills(host=host, cgroups=cgroups, unexplained=unexplained)


@pytest.mark.parametrize(
    ("before", "now", "rises", "unexplained"),
    [
        (kills(5, a=1), kills(5, a=1), [], 0),
        (kills(5, a=1), kills(7, a=3), [Rise("a", 2)], 0),
        (kills(5, a=1), kills(7, a=2), [Rise("a", 1), Rise("", 1)], 0),
        (kills(5), kills(6), [Rise("", 1)], 0),
        (kills(5), kills(6, a=4), [Rise("", 1)], 0),  # new to us: it may have risen before
        (kills(5, a=1), kills(5, a=2), [Rise("a", 1)], -1),  # the host's counter was read before
        (kills(5, -1, a=2), kills(6, a=2), [], 0),
        (kills(5, -1, a=2), kills(7, a=2), [Rise("", 1)], 0),
        (kills(5, a=3), kills(0, a=0), [], 0),  # began anew
        (kills(5, a=1), kills(6), [Rise("", 1)], 0),  # the cgroup went with its last process
        (kills(None, a=1), kills(None, a=2), [Rise("a", 1)], 0),
    ],
)
def test_what_rose_since_the_last_look(before, now, rises, unexplained):
    found, kept = risen(before, now)
    assert (found, kept.unexplained) == (rises, unexplained)
    assert (kept.host, kept.cgroups) == (now.host, now.cgroups)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)), max_size=20))
def test_every_kill_is_reported_once_however_the_readings_interleave(steps):
    """Each look: kills in the cgroup seen with the host's, kills elsewhere, and kills whose host count comes later."""
    host = inside = late = 0
    known, reported, happened = kills(0, a=0), 0, 0
    for together, elsewhere, ahead in steps:
        host += together + elsewhere + late
        inside += together + ahead
        late = ahead
        happened += together + elsewhere + ahead
        rises, known = risen(known, kills(host, a=inside))
        reported += sum(rise.count for rise in rises)
    assert reported <= happened
    host += late
    rises, _ = risen(known, kills(host, a=inside))
    assert reported + sum(rise.count for rise in rises) == happened


def test_counters_of_both_versions_are_read_and_what_is_gone_is_left_out(proc, tmp_path):
    for name in ("v1", "v2", "gone"):
        (tmp_path / name).mkdir()
    (tmp_path / "v1" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (tmp_path / "v2" / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 5\noom_kill 4\noom_group_kill 0\n")
    proc.write("vmstat", "nr_free_pages 10\noom_kill 12\n")
    cgroups = [Cgroup(tmp_path / name, tmp_path, 2 if name == "v2" else 1) for name in ("v1", "v2", "gone")]
    found = read_kills(cgroups, proc=proc.path)
    assert found.host == 12
    assert found.cgroups == {str(tmp_path / "v1"): 3, str(tmp_path / "v2"): 4}
    (proc.root / "vmstat").unlink()
    assert read_kills([], proc=proc.path) == kills(None)
