import json
import os

import pytest

from mempressure.act.succession import KEPT_SECONDS, Succession, Successions
from tests.support.doubles.clock import Clock

ONE = Succession((5, 50), frozenset({(5, 50), (6, 60)}))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "successions.json"


def test_a_successor_serves_and_was_not_there_before(make_worker):
    def worker(pid, *, serving=True):
        return make_worker(pid=pid, start_ticks=10 * pid, serving=serving)

    assert ONE.successors([worker(5), worker(7)]) == []  # the old one is still there
    assert ONE.successors([worker(6)]) == []
    assert ONE.successors([worker(6), worker(7, serving=False)]) == []
    assert [each.pid for each in ONE.successors([worker(6), worker(7)])] == [7]


def test_without_a_file_it_is_this_process_that_knows():
    successions = Successions()
    assert successions.of("shop") is None
    successions.begin("shop", ONE)
    assert successions.of("shop") == ONE
    successions.end("shop")
    assert successions.of("shop") is None


def test_the_process_that_acts_next_knows_of_what_is_awaited(path):
    first = Successions(path)
    first.begin("shop", ONE)
    assert path.stat().st_mode & 0o777 == 0o600
    second = Successions(path)
    assert second.of("shop") == ONE
    assert second.of("other") is None
    assert (first.adopted, second.adopted) == (set(), {"shop"})
    second.end("shop")
    assert second.adopted == set()
    assert Successions(path).of("shop") is None


def test_what_was_awaited_long_ago_counts_no_more(path):
    clock = Clock(1000.0)
    Successions(path, clock=clock).begin("shop", ONE)
    for moved, counts in ((KEPT_SECONDS - 1, True), (2, False), (-2 * KEPT_SECONDS, False)):
        clock.now += moved
        assert (Successions(path, clock=clock).of("shop") is not None) is counts


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"shop": 5}',
        b'{"shop": {"retired": [1], "known": [], "until": 9e99}}',
        b'{"shop": {"until": "x"}}',
    ],
)
def test_a_file_that_makes_no_sense_is_none_and_said_once(path, content, caplog):
    path.write_bytes(content)
    successions = Successions(path)
    assert successions.of("shop") is None
    assert successions.of("shop") is None
    assert len([message for message in caplog.messages if str(path) in message]) <= 1


def test_where_it_cannot_be_written_it_is_said_once_and_known_here(tmp_path, caplog):
    successions = Successions(tmp_path / "none" / "successions.json")
    successions.begin("shop", ONE)
    successions.begin("shop", ONE)
    assert successions.of("shop") == ONE
    assert len(caplog.messages) == 1


def test_apps_are_kept_apart(path):
    successions = Successions(path)
    successions.begin("a", ONE)
    successions.begin("b", Succession((7, 70), frozenset()))
    successions.end("a")
    assert list(json.loads(path.read_bytes())) == ["b"]
    assert os.listdir(path.parent) == [path.name]
