"""Sixteen callers of two workers while one unloads a hundred times, and results at the limit of a message."""

import threading

import pytest

UNLOADS = 100


@pytest.mark.timeout(300)
def test_a_hundred_unloads_under_sixteen_callers_fail_no_call(workers):
    for worker in workers:
        worker("declare()")
        worker("run('ended, wrong = threading.Event(), []')")
        worker(
            "run('''"
            "def make():\n"
            "    number = 0\n"
            "    while not ended.wait(0.01):\n"
            "        number += 1\n"
            "        try:\n"
            "            if call('square', number) != number * number:\n"
            "                wrong.append(number)\n"
            "        except BaseException as error:\n"
            "            wrong.append(repr(error))\n"
            "made = [threading.Thread(target=make) for _ in range(8)]\n"
            "for thread in made: thread.start()\n"
            "''')"
        )
    one, _ = workers
    unloads = 0
    while unloads < UNLOADS:
        unloads += one("package.unload()")[1] is None
    for worker in workers:
        worker("run('ended.set()\\nfor thread in made: thread.join()')")
        assert worker("wrong") == []
        assert worker("package.process_deaths") == 0


def test_a_result_above_the_limit_is_refused_and_one_below_is_right(make_package):
    from tests.support.functions import isolated_functions as functions

    package = make_package(message_limit=64 << 20)
    for size, fits in (((64 << 20) - 200, True), ((64 << 20) + 1, False), ((64 << 20) - 200, True)):
        if fits:
            assert package.call(functions.__name__, "large", (size,)) == b"x" * size
        else:
            with pytest.raises(Exception, match=r"more than the 67108864 allowed.*MEMPRESSURE_MESSAGE_LIMIT"):
                package.call(functions.__name__, "large", (size,))
    assert threading.active_count() < 50
