import logging

import pytest

from mempressure.log_once import LogOnce


@pytest.fixture
def once(caplog):
    caplog.set_level(logging.INFO)
    return LogOnce("mempressure.test")


def test_a_problem_that_lasts_is_logged_once(once, caplog):
    for _ in range(3):
        once.warning("file", "not read: reason=%s", "no such file")
    assert caplog.messages == ["not read: reason=no such file"]


def test_a_problem_that_changes_is_logged_again(once, caplog):
    for reason in ("a", "a", "b", "b", "a"):
        once.warning("file", "not read: reason=%s", reason)
    assert [message[-1] for message in caplog.messages] == ["a", "b", "a"]


def test_problems_of_several_keys_do_not_hide_each_other(once, caplog):
    for _ in range(2):
        once.warning("one", "not read: %s", "one")
        once.warning("two", "not read: %s", "two")
    assert caplog.messages == ["not read: one", "not read: two"]


def test_a_problem_that_comes_back_is_logged_again(once, caplog):
    assert not once.over("file")
    once.error("file", "not read")
    once.warning("other", "not read")
    assert once.over("file")
    assert not once.over("file")
    once.error("file", "not read")
    once.warning("other", "not read")
    assert caplog.messages == ["not read"] * 3


def test_the_record_is_as_if_the_caller_had_logged_it(once, caplog):
    once.info(1, "one %d", 1)
    once.warning(2, "two")
    once.error(3, "three", exc_info=ValueError("three"))
    records = caplog.records
    assert [(record.levelname, record.getMessage()) for record in records] == [
        ("INFO", "one 1"),
        ("WARNING", "two"),
        ("ERROR", "three"),
    ]
    assert {record.name for record in records} == {"mempressure.test"}
    assert {record.funcName for record in records} == {"test_the_record_is_as_if_the_caller_had_logged_it"}
    assert [bool(record.exc_info) for record in records] == [False, False, True]


def test_no_number_of_problems_takes_more_and_more_memory(once, caplog):
    for number in range(2500):
        once.warning(number, "number %d", number)
    assert len(caplog.messages) == 2500
    assert len(once._logged) <= 1000
