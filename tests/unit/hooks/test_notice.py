import io
import sys

import pytest

from mempressure.hooks.notice import say


def test_a_notice_is_one_line_on_standard_error(capsys):
    say("workers do not share")
    assert capsys.readouterr() == ("", "mempressure: workers do not share\n")


class Full(io.StringIO):
    def write(self, _text):
        raise OSError(28, "No space left on device")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, Full(), closed()], ids=["none", "full", "closed"])
def test_a_notice_that_cannot_be_written_is_lost(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    say("nothing to be done")
