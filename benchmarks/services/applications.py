"""The third-party applications: how each is prepared, started and put to use."""

import http.client
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.services.environments import PROGRAMS, Environment
from benchmarks.services.load import Answers, ask, send_tasks

WORKERS = 2
CLIENTS = 4
COOKIE = "cookie.txt"


class Site(NamedTuple):
    """Where one run of an application is."""

    port: int
    """That it serves on, or Redis for it; on loopback."""
    project: Path
    """Its own copy of the project's folder."""


class Application:
    """One application.

    Args:
        title: for people.
        environment: where it is installed.
        distributions: whose versions are told.
        passes: how often each client goes through its load.
        options: words that a way adds to its command, for the ways besides those of mempressure that it has.
    """

    def __init__(
        self,
        title: str,
        environment: Environment,
        *,
        distributions: Sequence[str],
        passes: int,
        options: Mapping[str, Sequence[str]],
    ) -> None:
        self.title = title
        self.installed = environment
        self.distributions = distributions
        self.passes = passes
        self.options: Mapping[str, Sequence[str]] = {"plain": (), "managed": (), "shared": (), **options}

    @property
    def name(self) -> str:
        """Return what it is called in tables, and by mempressure."""
        return self.installed.name

    @property
    def needs_redis(self) -> bool:
        """Return whether its port is Redis'."""
        return False

    def command(self, site: Site, way: str) -> list[str]:
        """Return the command that runs it, in a way without what mempressure puts before it."""
        return [*self._command(site), *self.options[way]]

    def environ(self, site: Site, /) -> dict[str, str]:
        """Return the environment variables that it needs."""
        raise NotImplementedError

    def answers(self, site: Site) -> bool:
        """Return whether it does."""
        raise NotImplementedError

    def load(self, site: Site, *, passes: int) -> Answers:
        """Put it to use: each of the clients `passes` times."""
        raise NotImplementedError

    def _command(self, site: Site, /) -> list[str]:
        raise NotImplementedError


class WebApplication(Application):
    """One that answers HTTP; `paths` are asked for with the cookie that preparing it left."""

    paths: Sequence[str] = ()
    light = "/"
    """A page that costs little."""
    growing: Sequence[str] = ()
    """Pages by which a worker that has not answered one yet grows by some MiB."""

    def answers(self, site: Site) -> bool:
        """Return whether its first page is there."""
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)) as connection:
                connection.request("GET", self.paths[0], headers=self.headers)
                return connection.getresponse().status == http.client.OK
        except OSError:
            return False

    def load(self, site: Site, *, passes: int) -> Answers:
        """Ask for all paths."""
        return ask(site.port, self.paths, headers=self.headers, clients=CLIENTS, passes=passes)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of its clients."""
        cookie = self.installed.project / COOKIE
        return {"Cookie": cookie.read_text().strip()} if cookie.exists() else {}

    def _gunicorn(self, site: Site, application: str) -> list[str]:
        words = [self.installed.program("gunicorn"), application, "--chdir", str(site.project), "--no-control-socket"]
        words += ["--bind", f"127.0.0.1:{site.port}", "--workers", str(WORKERS), "--timeout", "120"]
        return [*words, "--worker-class", "gthread", "--threads", "4"]


class Wagtail(WebApplication):
    """A site made by `wagtail start`: its pages and its administration."""

    paths = (
        *("/", "/page-3/", "/page-7/", "/search/?query=page", "/admin/", "/admin/pages/", "/admin/pages/3/"),
        *("/admin/pages/3/edit/", "/admin/pages/3/history/", "/admin/pages/search/?q=page", "/admin/images/"),
        *("/admin/images/1/", "/admin/documents/", "/admin/users/", "/admin/reports/site-history/"),
        *("/admin/collections/", "/admin/sites/", "/django-admin/"),
    )
    light = "/admin/jsi18n/"
    growing = ("/page-3/", "/admin/pages/3/edit/", "/admin/images/")

    def environ(self, _site: Site, /) -> dict[str, str]:
        """Return where its settings are."""
        return {"DJANGO_SETTINGS_MODULE": "mysite.settings.production"}

    def _command(self, site: Site, /) -> list[str]:
        return self._gunicorn(site, "mysite.wsgi")

    @staticmethod
    def prepare(environment: Environment) -> None:
        """Make the site and fill it."""
        settings = {"DJANGO_SETTINGS_MODULE": "mysite.settings.production", "PYTHONPATH": "."}
        environment.run("wagtail", "start", "mysite", ".")
        # Not in the project's folder, of which each run has a copy.
        static = environment.folder / "static"
        local = f'SECRET_KEY = "benchmark"\nALLOWED_HOSTS = ["127.0.0.1"]\nSTATIC_ROOT = {str(static)!r}\n'
        (environment.project / "mysite/settings/local.py").write_text(local)
        for words in (("migrate",), ("collectstatic", "--noinput")):
            environment.run("python", "manage.py", *words, "--verbosity", "0", environ=settings)
        cookie = environment.run("python", str(PROGRAMS / "wagtail_content.py"), environ=settings)
        environment.run("python", "manage.py", "update_index", "--verbosity", "0", environ=settings)
        (environment.project / COOKIE).write_text(cookie)


class Superset(WebApplication):
    """Apache Superset with a database, charts and a dashboard."""

    paths = (
        *("/health", "/superset/welcome/", "/dashboard/list/", "/superset/dashboard/1/", "/api/v1/dashboard/"),
        *("/api/v1/dashboard/1/charts", "/api/v1/dashboard/1/datasets", "/api/v1/chart/", "/api/v1/chart/1/data/"),
        *("/api/v1/chart/2/data/?force=true", "/api/v1/chart/3/data/?format=csv", "/api/v1/chart/3/data/?format=xlsx"),
        *("/api/v1/dataset/", "/api/v1/dataset/1", "/api/v1/database/", "/explore/?slice_id=1", "/sqllab/"),
        *("/api/v1/explore/?slice_id=1", "/users/list/", "/swagger/v1"),
    )

    def environ(self, site: Site, /) -> dict[str, str]:
        """Return where its configuration is."""
        return {"SUPERSET_CONFIG_PATH": str(site.project / "superset_config.py"), "FLASK_APP": "superset"}

    def _command(self, site: Site, /) -> list[str]:
        return self._gunicorn(site, "superset.app:create_app()")

    @staticmethod
    def prepare(environment: Environment) -> None:
        """Make its databases and fill them."""
        shutil.copy(PROGRAMS / "superset_config.py", environment.project)
        configuration = str(environment.project / "superset_config.py")
        environ = {"SUPERSET_CONFIG_PATH": configuration, "FLASK_APP": "superset"}
        admin = ("--username", "admin", "--firstname", "A", "--lastname", "B", "--email", "a@example.com")
        environment.run("superset", "db", "upgrade", environ=environ)
        environment.run("superset", "fab", "create-admin", *admin, "--password", "admin", environ=environ)
        environment.run("superset", "init", environ=environ)
        output = environment.run("python", str(PROGRAMS / "superset_content.py"), environ=environ)
        (environment.project / COOKIE).write_text(output.splitlines()[-1])


class Embeddings(WebApplication):
    """FastAPI with a language model, loaded at the first request for it."""

    paths = ("/ping", *(f"/embed?text=sentence+number+{number}+of+a+few" for number in range(20)))

    def environ(self, _site: Site, /) -> dict[str, str]:
        """Return what keeps torch to one core and the model's library from the network."""
        return {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

    def _command(self, site: Site, /) -> list[str]:
        words = [self.installed.program("uvicorn"), "embeddings:app", "--app-dir", str(PROGRAMS), "--no-access-log"]
        words += ["--host", "127.0.0.1", "--port", str(site.port), "--workers", str(WORKERS)]
        # A worker that loads the model on a busy machine does not answer its supervisor for longer than 5 s.
        return [*words, "--timeout-worker-healthcheck", "60"]


class Tasks(Application):
    """A Celery application with a prefork pool."""

    tasks = (
        *[("tasks.order", 40 + number) for number in range(8)],
        ("tasks.table", 20_000),
        *[("tasks.order", 60 + number) for number in range(8)],
        ("tasks.algebra", 6),
    )

    @property
    def needs_redis(self) -> bool:
        """Return that its broker is Redis."""
        return True

    def environ(self, site: Site, /) -> dict[str, str]:
        """Return where its broker is."""
        return {"TASKS_REDIS": f"redis://127.0.0.1:{site.port}"}

    def answers(self, site: Site) -> bool:
        """Return whether it runs a task."""
        return not send_tasks(f"redis://127.0.0.1:{site.port}", [("tasks.order", 1)], clients=1, passes=1).failed

    def load(self, site: Site, *, passes: int) -> Answers:
        """Send all tasks."""
        return send_tasks(f"redis://127.0.0.1:{site.port}", self.tasks, clients=CLIENTS, passes=passes)

    def _command(self, _site: Site, /) -> list[str]:
        words = [self.installed.program("celery"), "--app", "tasks", "--workdir", str(PROGRAMS), "worker"]
        return [*words, "--concurrency", str(WORKERS), "--loglevel", "WARNING"]


def applications() -> list[Application]:
    """Return the applications of the benchmark, in the order in which they are put to use."""
    return [
        Tasks(
            "Celery, prefork",
            Environment("tasks"),
            distributions=("celery", "SQLAlchemy", "pandas", "sympy"),
            passes=20,
            options={"own best": ("--max-memory-per-child", "160000")},
        ),
        Wagtail(
            "wagtail, gunicorn",
            Environment("wagtail", programs=("wagtail_content.py",), prepare=Wagtail.prepare),
            distributions=("wagtail", "Django", "gunicorn"),
            passes=4,
            options={
                "preloaded": ("--preload",),
                "own best": ("--max-requests", "100", "--max-requests-jitter", "20"),
            },
        ),
        Superset(
            "Superset, gunicorn",
            Environment("superset", programs=("superset_config.py", "superset_content.py"), prepare=Superset.prepare),
            distributions=("apache-superset", "gunicorn"),
            passes=4,
            options={
                "preloaded": ("--preload",),
                "own best": ("--max-requests", "100", "--max-requests-jitter", "20"),
            },
        ),
        Embeddings(
            "FastAPI and MiniLM on torch, uvicorn",
            Environment("embeddings"),
            distributions=("fastapi", "uvicorn", "torch", "sentence-transformers"),
            passes=6,
            options={"own best": ("--limit-max-requests", "200")},
        ),
    ]
