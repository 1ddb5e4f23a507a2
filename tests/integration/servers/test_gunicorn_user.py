"""Workers of gunicorn that get another user than the arbiter, which has loaded the application as root."""

import os
import sys

import pytest

from mempressure.control.standalone import LOCK_NAME
from mempressure.state.node_reader import read_node
from stack.processes import Processes, free_port
from tests.support.servers.workers import Workers
from tests.support.users import OTHER, open_to_others, readable_command
from tests.support.waiting import until


@pytest.fixture
def sample(tmp_path_factory, runtime_dir):
    """Start two workers of gunicorn with another user; returns what they publish."""
    if os.geteuid():
        pytest.skip("changes the user: needs root")
    runtime_dir.chmod(0o1777)
    open_to_others(runtime_dir)
    workers = Workers(runtime_dir, "preloaded")
    workers.port = free_port()
    with Processes(logs=tmp_path_factory.mktemp("logs"), environ={}) as processes:

        def start(*options, boot_seconds):
            module = "tests.support.programs.preload_sample"
            command = [sys.executable, "-m", "gunicorn", f"{module}:application", "--no-control-socket"]
            options += ("--user", OTHER.pw_name, "--group", str(OTHER.pw_gid), "--workers", "2")
            # As where a hook opens connections before a worker has its user.
            config = tmp_path_factory.mktemp("config") / "gunicorn.conf.py"
            config.write_text(f"import time\n\n\ndef post_fork(server, worker):\n    time.sleep({boot_seconds})\n")
            options += ("--bind", f"127.0.0.1:{workers.port}", "--config", str(config))
            workers.process = processes.start(
                "preloaded",
                readable_command([*command, *options]),
                environ=workers.environ(
                    MEMPRESSURE_ACTUATOR="127.0.0.1:9",
                    PYTHONDONTWRITEBYTECODE="1",
                    HOME="/nonexistent",
                ),
            )
            return workers

        yield start


@pytest.mark.parametrize("boot_seconds", [0, 1.5], ids=["at once", "after the first tick"])
@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["", "preload"])
def test_workers_are_seen_and_ordered_as_their_user(sample, runtime_dir, options, boot_seconds):
    workers = sample(*options, boot_seconds=boot_seconds)
    log = workers.process.log

    def both_serve():
        app = read_node(runtime_dir, on_problem=lambda _: None).apps.get(workers.name)
        return app is not None and app.uid == OTHER.pw_uid and len([w for w in app.workers if w.serving]) == 2

    until(
        both_serve,
        lambda: f"two workers of the user in {sorted(map(str, runtime_dir.rglob('*')))}, {log.read_text()}",
        seconds=40,
    )
    for worker in workers.serving():
        assert workers.order(worker, id=f"m{worker.pid}", op="measure") == {"id": f"m{worker.pid}"}
    own = runtime_dir / str(OTHER.pw_uid)
    assert own.stat().st_uid == OTHER.pw_uid
    lock = own / LOCK_NAME
    until(lock.exists, "one of them to lead")
    assert lock.stat().st_uid == OTHER.pw_uid
    assert "Traceback" not in log.read_text()
