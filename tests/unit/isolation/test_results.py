"""What results import into the worker: said once, and measured."""

import logging
import sys

import pytest

from mempressure.isolation.results import ImportedByResults
from mempressure.protocol import frames

BALLAST = 40 << 20  # more than malloc ever keeps for the next one


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """The notes of a package that is written for it; it is not loaded here."""
    (tmp_path / "heavy_package.py").write_text(f"ballast = b'x' * {BALLAST}\nclass Report:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield ImportedByResults()
    sys.modules.pop("heavy_package", None)


@pytest.fixture
def payload(imported):
    """A result that has an object of the package."""
    import heavy_package

    payload = frames.encode([heavy_package.Report()])
    del sys.modules["heavy_package"]
    return payload


def test_a_result_that_imports_the_package_is_told_once_with_what_it_adds(imported, payload, caplog):
    for _ in range(3):
        (report,) = imported.decoded(payload, "shop.monthly")
        assert type(report).__name__ == "Report"
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "the result of shop.monthly" in message
    assert "has imported heavy_package into this worker" in message
    assert 'results="plain"' in message
    assert BALLAST * 0.9 < imported.size < BALLAST * 2


def test_plain_data_is_not_looked_at(imported, monkeypatch):
    monkeypatch.setattr("mempressure.isolation.results._anonymous_bytes", None)  # would fail
    for value in (None, 1, "text", [1.5, {"a": b"b"}], list(range(100))):
        assert imported.decoded(frames.encode(value), "f") == value
    assert imported.size == 0


def test_what_the_worker_has_loaded_already_adds_nothing(imported, payload, caplog):
    import heavy_package  # noqa: F401 - so that it is loaded

    imported.decoded(payload, "f")
    assert (imported.size, caplog.records) == (0, [])


def test_the_standard_library_is_no_package(imported, caplog):
    with caplog.at_level(logging.WARNING):
        sys.modules.pop("colorsys", None)
        import colorsys

        payload = frames.encode(colorsys.rgb_to_hsv)
        del sys.modules["colorsys"]
        imported.decoded(payload, "f")
    assert (imported.size, caplog.records) == (0, [])


def test_a_result_that_cannot_be_unpickled_raises_as_it_is(imported):
    with pytest.raises(ModuleNotFoundError):
        imported.decoded(frames.Payload(b"\x80\x05\x8c\x10no_such_module_a\x8c\x01x\x93."), "f")
