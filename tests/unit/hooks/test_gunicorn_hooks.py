import os
import sys

import pytest
from gunicorn import config
from gunicorn.app.base import Application
from gunicorn.workers.sync import SyncWorker

from mempressure.config.configuration import MANAGED, OBSERVED_IN
from mempressure.hooks import gunicorn
from mempressure.hooks.gunicorn import Preloading, reason_not_to_preload

GEVENT = type("GeventWorker", (SyncWorker,), {"__module__": "gunicorn.workers.ggevent"})
EVENTLET = type("EventletWorker", (SyncWorker,), {"__module__": "gunicorn.workers.geventlet"})
OWN_GEVENT = type("OurWorker", (GEVENT,), {"__module__": "shop.workers"})
SPEAKS_OF_GEVENT = type("NoGeventWorker", (SyncWorker,), {"__module__": "shop.workers"})


@pytest.fixture
def noting(monkeypatch):
    """What is set is noted for the time of the test."""
    monkeypatch.setattr(config.Config, "set", config.Config.set)
    gunicorn._note_refusals()


class Loaded(Application):
    """gunicorn's application, which reads command line, environment and file as under gunicorn."""

    def init(self, _parser, _options, _args):
        return None

    def load(self):
        return "loaded"


@pytest.fixture
def configured(noting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def configured(*words, file="", variable=""):
        (tmp_path / "gunicorn.conf.py").write_text(file)
        monkeypatch.setattr(
            sys, "argv", ["gunicorn", "--config", str(tmp_path / "gunicorn.conf.py"), "--chdir", str(tmp_path), *words]
        )
        monkeypatch.setenv("GUNICORN_CMD_ARGS", variable)
        return Loaded().cfg

    return configured


@pytest.mark.parametrize(
    ("words", "file", "variable"),
    [
        ([], "", ""),
        (["--preload"], "", ""),
        ([], "preload_app = True", ""),
        ([], "", "--preload"),
        (["--preload"], "preload_app = False", ""),  # the command line holds
        ([], "preload_app = False", "--preload"),
        ([], "preload_app = 'true'", ""),
        (["--threads", "4"], "workers = 2", "--timeout 5"),
        (["--worker-class", "asgi"], "", ""),
    ],
)
def test_what_does_not_speak_of_it_may_be_preloaded(configured, words, file, variable):
    assert reason_not_to_preload(configured(*words, file=file, variable=variable)) == ""


@pytest.mark.parametrize("value", ["False", "'false'", "'False'", "None"])
def test_an_application_whose_configuration_says_no_is_not_preloaded(configured, value):
    reason = reason_not_to_preload(configured(file=f"preload_app = {value}"))
    assert "preload_app = False is set in gunicorn's configuration" in reason


def test_what_a_program_of_its_own_sets_counts_as_well(noting):
    cfg = config.Config()
    assert reason_not_to_preload(cfg) == ""
    cfg.set("preload_app", False)
    assert "preload_app = False" in reason_not_to_preload(cfg)


@pytest.mark.parametrize(("words", "file", "variable"), [(["--reload"], "", ""), ([], "reload = True", "")])
def test_reloading_is_refused_by_name(configured, words, file, variable):
    assert "--reload" in reason_not_to_preload(configured(*words, file=file, variable=variable))


@pytest.mark.parametrize(
    ("worker", "refused"),
    [(GEVENT, True), (EVENTLET, True), (OWN_GEVENT, True), (SPEAKS_OF_GEVENT, False), (SyncWorker, False)],
)
def test_workers_that_patch_the_standard_library_are_refused_by_name(noting, worker, refused):
    cfg = config.Config()
    cfg.set("worker_class", worker)
    reason = reason_not_to_preload(cfg)
    assert bool(reason) == refused
    assert reason == "" or reason.startswith(
        f"gunicorn's {worker.__name__} workers replace parts of the standard library"
    )


class ReplacedError(Exception):
    """Raised in place of the replacement of this process: with the command and its environment."""


@pytest.fixture
def replaced(monkeypatch):
    def replace(program, command, environ):
        raise ReplacedError(program, command, environ)

    monkeypatch.setattr(os, "execve", replace)


@pytest.fixture
def application(configured):
    def application(load, **options):
        configured(**options)
        made = Loaded()
        made.load = load
        return made

    return application


def fails(error):
    def load():
        raise error

    return load


def test_an_application_is_preloaded(application):
    app, sharing = application(lambda: "loaded"), Preloading(directory="/")
    sharing.prepare(app)
    assert (app.cfg.preload_app, sharing.preloaded, app.wsgi()) == (True, True, "loaded")


def test_one_that_is_refused_is_left_as_it_is(application, capsys):
    app, sharing = application(lambda: "loaded", file="preload_app = False"), Preloading(directory="/")
    sharing.prepare(app)
    assert (app.cfg.preload_app, sharing.preloaded, app.wsgi()) == (False, False, "loaded")
    assert "mempressure: workers do not share their memory: preload_app = False" in capsys.readouterr().err


def test_one_that_was_tried_is_not_tried_again_and_its_own_preload_stays(application, capsys):
    app = application(lambda: "loaded", file="preload_app = True")
    sharing = Preloading(directory="/", refused="a thread was started")
    sharing.prepare(app)
    assert (app.cfg.preload_app, sharing.preloaded) == (True, False)
    assert "a thread was started" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("REGION"), SystemExit(3)])
def test_one_that_cannot_be_loaded_before_the_fork_is_started_again_where_it_was(
    application, replaced, monkeypatch, tmp_path, error
):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "gunicorn", "shop:app"])
    (tmp_path / "began here").mkdir()
    app, sharing = application(fails(error)), Preloading(directory=str(tmp_path / "began here"))
    sharing.prepare(app)
    with pytest.raises(ReplacedError) as replacement:
        app.wsgi()
    program, command, environ = replacement.value.args
    assert (program, command) == (sys.executable, [sys.executable, "-m", "gunicorn", "shop:app"])
    assert os.getcwd() == str(tmp_path / "began here")
    reason = environ["MEMPRESSURE_NOT_SHARED"]
    assert reason == f"the application cannot be loaded before the fork: {type(error).__name__}: {error}"


def test_ctrl_c_while_it_is_loaded_ends_it(application, replaced):
    app, sharing = application(fails(KeyboardInterrupt())), Preloading(directory="/")
    sharing.prepare(app)
    with pytest.raises(KeyboardInterrupt):
        app.wsgi()


def test_in_a_check_it_fails_where_it_stands_and_that_is_recorded(application, replaced, monkeypatch, tmp_path):
    monkeypatch.setenv(MANAGED, "check")
    monkeypatch.setenv(OBSERVED_IN, str(tmp_path))
    app, sharing = application(fails(KeyError("REGION"))), Preloading(directory="/")
    sharing.prepare(app)
    with pytest.raises(KeyError, match="REGION"):
        app.wsgi()
    assert "KeyError: 'REGION'" in (tmp_path / "sharing.json").read_text()


def test_a_reload_is_decided_as_the_start_was_and_says_that_it_loads_no_code(application, capsys):
    app, sharing = application(lambda: "loaded"), Preloading(directory="/")
    sharing.prepare(app)
    load = app.load
    app.wsgi()
    app.reload()
    assert not app.cfg.preload_app
    sharing.prepare(app)
    assert app.cfg.preload_app
    assert app.load is load
    assert capsys.readouterr().err == (
        "mempressure: SIGHUP loads no new code where workers share it; send SIGUSR2, or restart\n"
    )


def test_what_was_refused_at_the_start_is_not_begun_while_workers_run(application, capsys):
    app, sharing = application(lambda: "loaded", file="preload_app = False"), Preloading(directory="/")
    sharing.prepare(app)
    app.cfg.set("preload_app", "true")
    capsys.readouterr()
    sharing.prepare(application(lambda: "loaded"))
    assert (sharing.preloaded, capsys.readouterr().err) == (False, "")
