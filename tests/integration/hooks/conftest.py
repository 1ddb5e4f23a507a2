"""Fixtures of tests with unchanged applications under `mempressure run --manage`."""

import pytest

from tests.support.servers.unchanged import Unchanged


@pytest.fixture
def shop(processes, tmp_path, runtime_dir):
    """A service that is to be written and started; it must leave no file behind."""
    (tmp_path / "service").mkdir()
    shop = Unchanged(processes, tmp_path / "service", runtime_dir)
    yield shop
    if shop.process is not None:
        shop.process.stop()
    left = [
        path.name for path in shop.files() if path.name != "control.lock"
    ]  # of the control loop, which one of them led
    assert left == []
