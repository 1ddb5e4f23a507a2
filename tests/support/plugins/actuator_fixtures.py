"""Pytest plugin: an actuator inside the test's process, its token, and clients of its HTTP API.

What a fixture imports it imports itself: most tests need no Flask.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mempressure.config.configuration import load_configuration

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from mempressure_actuator.actuator import Actuator
    from tests.support.builders.proc_tree import FixtureProc


@pytest.fixture
def actuator(proc: "FixtureProc", runtime_dir: Path, state_dir: Path) -> "Iterator[Actuator]":
    """An actuator of the node "n1" on the test's `/proc` and directories; its loop is not started."""
    from mempressure_actuator.actuator import Actuator

    environ = {
        "MEMPRESSURE_RUNTIME_DIR": str(runtime_dir),
        "MEMPRESSURE_STATE_DIR": str(state_dir),
        "MEMPRESSURE_NODE": "n1",
    }
    made = Actuator(load_configuration(environ=environ), proc=proc.path)
    yield made
    made.stop()


@pytest.fixture
def token(state_dir: Path) -> str:
    """The actuator's token, as its file holds it."""
    from mempressure_actuator.api.token import load_token

    load_token(state_dir / "token")
    return (state_dir / "token").read_text().strip()


@pytest.fixture
def client_of(actuator: "Actuator", state_dir: Path) -> "Callable[..., FlaskClient]":
    """Make a client of the application that an actuator listening on `host` serves."""
    from mempressure_actuator.api.access import Access
    from mempressure_actuator.api.token import load_token
    from mempressure_actuator.application import create_app

    def client(host: str = "127.0.0.1") -> "FlaskClient":
        return create_app(actuator, access=Access(load_token(state_dir / "token"), host=host)).test_client()

    return client


@pytest.fixture
def client(client_of: "Callable[..., FlaskClient]") -> "FlaskClient":
    """A client of the application that listens on loopback."""
    return client_of()


@pytest.fixture
def auth(token: str) -> dict[str, str]:
    """The headers of a request that has the token."""
    return {"Authorization": f"Bearer {token}"}
