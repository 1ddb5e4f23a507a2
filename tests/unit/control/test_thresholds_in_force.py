import pytest

from mempressure.config.configuration import load_configuration
from mempressure.config.runtime_settings import with_thresholds
from mempressure.config.settings_file import SettingsFile
from mempressure.config.thresholds import Thresholds
from mempressure.control import process_monitor as thresholds_in_force
from mempressure.control.actuator_client import ActuatorError
from mempressure.control.process_monitor import ThresholdsInForce
from mempressure.errors import ConfigurationError
from mempressure.loader import LazyLoader
from mempressure.package_process import identity
from stack.processes import free_port
from tests.support.servers.actuator_process import Actuator

MINE = {"warning": 0.5, "unload_packages": 0.6, "aggressive_unload": 0.7, "emergency": 0.8}
OTHERS = {"warning": 0.55, "unload_packages": 0.65, "aggressive_unload": 0.75, "emergency": 0.85}
DEFAULTS = Thresholds().as_dict()


@pytest.fixture
def configure(runtime_dir, state_dir):
    def configure(**environ):
        directories = {"MEMPRESSURE_RUNTIME_DIR": str(runtime_dir), "MEMPRESSURE_STATE_DIR": str(state_dir)}
        nobody = {"MEMPRESSURE_ACTUATOR": f"127.0.0.1:{free_port()}"}
        return load_configuration(environ=directories | nobody | environ)

    return configure


@pytest.fixture
def set_for_the_node(state_dir):
    """Set thresholds as an actuator on this node does."""
    return lambda values: SettingsFile(state_dir, defaults=Thresholds()).update(lambda s: with_thresholds(s, values))


@pytest.fixture
def actuator(runtime_dir, state_dir, tmp_path):
    actuator = Actuator(runtime_dir, state_dir, tmp_path / "actuator.log")
    actuator.start()
    yield actuator
    actuator.close()


def test_the_node_s_hold_until_others_are_set_here(configure, set_for_the_node):
    held = ThresholdsInForce(configure(LAZY_LOADING_UNLOADING_MEMORY_PRESSURE_THRESHOLD="0.7"))
    assert held.now() == Thresholds(unload_packages=0.7)
    set_for_the_node(OTHERS)
    assert held.now().as_dict() == OTHERS
    assert held.set(MINE).as_dict() == held.now().as_dict() == MINE
    set_for_the_node(DEFAULTS)
    assert held.now().as_dict() == MINE


def test_what_is_set_without_an_actuator_holds_in_this_process_alone(configure, state_dir):
    held = ThresholdsInForce(configure())
    held.set(MINE)
    assert ThresholdsInForce(configure()).now().as_dict() == DEFAULTS
    assert list(state_dir.iterdir()) == []


@pytest.mark.parametrize("bad", [{**MINE, "warning": 0.65}, {**MINE, "warning": float("nan")}, {"warning": 0.5}, [1]])
def test_what_cannot_be_used_changes_nothing_and_asks_nobody(configure, monkeypatch, bad):
    monkeypatch.setattr(thresholds_in_force, "answers", lambda _url: pytest.fail("asked"))
    held = ThresholdsInForce(configure())
    with pytest.raises(ConfigurationError):
        held.set(bad)
    assert held.now() == Thresholds()


def test_where_an_actuator_answers_they_go_to_it(configure, actuator):
    held = ThresholdsInForce(configure(MEMPRESSURE_ACTUATOR=actuator.address))
    assert held.set(MINE).as_dict() == MINE
    assert actuator.request("GET", "/api/packages/memory/settings")[2]["data"]["thresholds"] == MINE
    # Whoever sets others for the node is followed, and so is everybody else.
    assert actuator.request("POST", "/api/packages/memory/pressure-thresholds", OTHERS)[0] == 200
    assert held.now().as_dict() == ThresholdsInForce(configure()).now().as_dict() == OTHERS


def test_the_actuator_refuses_what_does_not_fit_it_and_nothing_changes(configure, actuator):
    mild = configure(MEMPRESSURE_ACTUATOR=actuator.address, MEMPRESSURE_HYSTERESIS="0.01")
    held = ThresholdsInForce(mild)
    with pytest.raises(ActuatorError, match=r"warning=0\.03 is out of range"):
        held.set({**MINE, "warning": 0.03})  # the actuator's hysteresis is 0.05
    assert held.now().as_dict() == DEFAULTS
    assert not (actuator.state_dir / "settings.json").exists()


def test_without_its_token_the_error_says_what_to_do(configure, actuator, tmp_path):
    elsewhere = configure(MEMPRESSURE_ACTUATOR=actuator.address, MEMPRESSURE_STATE_DIR=str(tmp_path / "other"))
    held = ThresholdsInForce(elsewhere)
    wanted = (
        rf"wants its token, and {tmp_path}/other/token: No such file or directory; "
        "run `mempressure thresholds set` .*MEMPRESSURE_STATE_DIR"
    )
    with pytest.raises(ConfigurationError, match=wanted):
        held.set(MINE)
    assert held.now().as_dict() == DEFAULTS
    assert actuator.request("GET", "/api/packages/memory/settings")[2]["data"]["thresholds"] == DEFAULTS
    (tmp_path / "other").mkdir()
    (tmp_path / "other/token").write_text("another-token-than-the-actuator-s")
    with pytest.raises(ActuatorError, match="refused: the token is wrong"):
        held.set(MINE)


def test_settings_that_cannot_be_read_are_told_once(configure, state_dir, caplog):
    (state_dir / "settings.json").mkdir()
    held = ThresholdsInForce(configure())
    assert held.now() == held.now() == Thresholds()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "settings of the node not read, the configuration's hold"
    ]


def test_a_package_host_tells_no_actuator(configure, monkeypatch):
    monkeypatch.setattr(thresholds_in_force, "answers", lambda _url: pytest.fail("asked"))
    monkeypatch.setattr(identity, "packages", lambda: ("pandas",))
    LazyLoader(configuration=configure()).set_memory_pressure_thresholds(MINE)


def test_the_loader_s_alerts_follow_them(configure, set_for_the_node):
    loader = LazyLoader(configuration=configure(), with_agent=False)
    assert loader.monitor.thresholds == Thresholds()
    set_for_the_node(OTHERS)
    assert loader.monitor.thresholds.as_dict() == OTHERS
    loader.monitor.set_thresholds(MINE)  # on the monitor itself, for as long as nobody sets others
    assert loader.monitor.thresholds.as_dict() == MINE
    loader.set_memory_pressure_thresholds(DEFAULTS)
    assert loader.monitor.thresholds.as_dict() == DEFAULTS
    loader.after_fork()
    assert loader.monitor.thresholds.as_dict() == DEFAULTS
