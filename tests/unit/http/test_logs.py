import io
import json
import logging

import pytest

from mempressure.http import logs


def log_line(log_format, *event, level="info"):
    stream = io.StringIO()
    root = logging.getLogger()
    before, before_level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        logs.set_up(level=level, log_format=log_format, stream=stream)
        logging.getLogger("some.part").log(*event)
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before
        root.setLevel(before_level)
    return stream.getvalue()


@pytest.mark.parametrize("log_format", logs.FORMATS)
def test_an_event_is_one_line_whatever_is_in_it(log_format):
    line = log_line(log_format, logging.WARNING, "found: name=%s", 'a"b\nlevel=error\x1b[2J\u2028\u009b é')
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert line.rstrip("\n").isprintable()


def test_json_and_logfmt_hold_the_same_fields():
    event = (logging.WARNING, "listening: address=%s", "127.0.0.1:1")
    fields = json.loads(log_line("json", *event))
    assert list(fields) == ["time", "level", "logger", "msg"]
    assert (fields["level"], fields["logger"], fields["msg"]) == (
        "warn",
        "some.part",
        "listening: address=127.0.0.1:1",
    )
    line = log_line("logfmt", *event)
    assert line.endswith(' level=warn logger=some.part msg="listening: address=127.0.0.1:1"\n')


def test_milder_levels_are_dropped():
    assert log_line("logfmt", logging.INFO, "said", level="warn") == ""
