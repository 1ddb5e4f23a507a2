"""An application that knows nothing of mempressure, under a server that `mempressure run` manages."""

import http.client
import os
import sys
from contextlib import closing
from pathlib import Path

from stack.engines import ROOT
from stack.processes import free_port
from tests.support.servers.workers import Workers
from tests.support.waiting import until

RUN = [sys.executable, "-m", "mempressure", "run"]
DEADLINE = 60.0


class Unchanged(Workers):
    """A service of the files in a folder.

    Args:
        processes: starts it.
        folder: where its files are.
        runtime: the runtime directory.
    """

    def __init__(self, processes, folder, runtime):
        super().__init__(runtime, "shop")
        self.folder = Path(folder)
        self.port = free_port()
        self.process = None
        self._processes = processes

    def environ(self, **more):
        """Return what it runs with: nothing of it is recycled but by order."""
        return {
            **os.environ,
            "MEMPRESSURE_APP": self.name,
            "MEMPRESSURE_RUNTIME_DIR": str(self.runtime),
            "MEMPRESSURE_STATE_DIR": str(self.runtime.with_name("state")),
            "MEMPRESSURE_CACHE_DIR": str(self.runtime.with_name("cache")),
            "MEMPRESSURE_ACTUATOR": "http://127.0.0.1:9",
            "MEMPRESSURE_BUDGET": "64GiB",
            "MEMPRESSURE_RECYCLE": "never",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **more,
        }

    def write(self, **files):
        """Write files: a keyword `service` is `service.py`, `gunicorn_conf` is `gunicorn.conf.py`."""
        for name, text in files.items():
            (self.folder / f"{name.replace('_conf', '.conf')}.py").write_text(text)

    def gunicorn(self, *options):
        """Return the command of gunicorn with two workers of `service:app`."""
        bind = ["--bind", f"127.0.0.1:{self.port}", "--no-control-socket"]
        return [
            sys.executable,
            "-m",
            "gunicorn",
            "service:app",
            "--chdir",
            self.folder,
            "--workers",
            "2",
            *bind,
            *options,
        ]

    def uvicorn(self, *options):
        """Return the command of uvicorn with two workers of `service:app`."""
        command = [sys.executable, "-m", "uvicorn", "service:app", "--app-dir", self.folder, "--workers", "2"]
        return [*command, "--port", str(self.port), *options]

    def start(self, command, *run, workers=2, **environ):
        """Start a command under `mempressure run` with these options, or by itself where there are none."""
        words = [*RUN, *run, "--", *command] if run else command
        self.process = self._processes.start("shop", [str(word) for word in words], environ=self.environ(**environ))
        if workers:
            self.process.wait_until(lambda: len(self.serving()) == workers, seconds=DEADLINE)

    def replaced(self, victim):
        """Order a worker to be recycled; return its successor once that serves and the worker is gone."""
        known = {worker.pid for worker in self.all()}
        assert self.order(victim, id=f"r{victim.pid}", op="recycle")["skipped"] is None

        def successor():
            new = [worker for worker in self.serving() if worker.pid not in known]
            return new if victim.pid not in {worker.pid for worker in self.all()} else []

        [found] = until(successor, "the successor", seconds=DEADLINE)
        return found

    def get(self, path="/"):
        """Return the answer to a request; None where nothing answers."""
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
                connection.request("GET", path)
                return connection.getresponse().read().decode()
        except OSError:
            return None

    @property
    def said(self):
        """Return the lines of mempressure in its output."""
        return [line for line in self.process.log.read_text().splitlines() if line.startswith("mempressure:")]
