"""Pytest plugin: each run, and each of its parallel processes, has its own home, temporary and mempressure directories.

They lie in one directory that is removed in the end, and every child process inherits them. What would still reach for
the user's or the machine's files is refused: a child that is started without these variables, and this process opening
one of mempressure's default directories.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from mempressure.config import configuration
from mempressure.config.configuration import OBSERVED_IN, SETTINGS

INHERITED = (
    "HOME",
    "TMPDIR",
    "MEMPRESSURE_CONFIG",
    *(f"MEMPRESSURE_{name}_DIR" for name in ("RUNTIME", "STATE", "CACHE")),
)
"""The variables without which a child would find the user's or the machine's directories."""
FOREIGN = ("docker-compose", "git")
"""Programs that know nothing of mempressure's directories, and may be given an environment without them."""

refused: list[str] = []
"""What was refused so far; the code under test may have survived it."""

_OPENING = {"open", "os.listdir", "os.scandir", "os.mkdir", "sqlite3.connect"}


class OwnDirectories:
    """The directories of this process of the run, all below `root`: a short path, since a socket's has 107 bytes."""

    def __init__(self, parent: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="mp-", dir=parent))
        self.base = self.root / "t"  # of `tmp_path`
        self.temporary = self._make("tmp")
        self.home = self._make("home")
        self.runtime, self.state, self.cache = (self.root / name for name in ("runtime", "state", "cache"))

    def environ(self) -> dict[str, str]:
        """Return the variables that lead to these directories."""
        xdg = {f"XDG_{name}_HOME": str(self.home / name.lower()) for name in ("CACHE", "CONFIG", "DATA", "STATE")}
        return xdg | {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "XDG_RUNTIME_DIR": str(self._make("xdg")),
            "MEMPRESSURE_CONFIG": os.devnull,
            "MEMPRESSURE_RUNTIME_DIR": str(self.runtime),
            "MEMPRESSURE_STATE_DIR": str(self.state),
            "MEMPRESSURE_CACHE_DIR": str(self.cache),
        }

    def _make(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path


DIRECTORIES = pytest.StashKey[OwnDirectories]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make the directories before pytest makes any, and lead this process and its children to them."""
    defaults = _default_directories()
    own = config.stash[DIRECTORIES] = OwnDirectories(tempfile.gettempdir())
    config.add_cleanup(lambda: shutil.rmtree(own.root))
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for variable in (*(setting.variable for setting in SETTINGS), OBSERVED_IN):
        patch.delenv(variable, raising=False)
    for variable, value in own.environ().items():
        patch.setenv(variable, value)
    patch.setattr(tempfile, "tempdir", None)  # it remembers the directory that it once found
    # Tests load configurations from environments of their own, too.
    patch.setattr(configuration, "DEFAULT_FILE", str(own.root / "none.yml"))
    if config.option.basetemp is None:  # one that was asked for, or that xdist gave its process, stays
        config.option.basetemp = str(own.base)
    _watch(defaults)


@pytest.fixture
def any_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test start children without the run's directories: programs that are no part of mempressure."""
    monkeypatch.setattr(sys.modules[__name__], "INHERITED", ())


def _default_directories() -> tuple[str, ...]:
    """Return what the user's, and root's, processes use where no variable is set."""
    found = configuration.load_configuration(environ={"MEMPRESSURE_CONFIG": os.devnull})
    own = (found.runtime_directory, found.state_directory, found.cache_directory)
    return tuple(
        {*map(str, own), "/etc/mempressure", "/run/mempressure", "/var/lib/mempressure", "/var/cache/mempressure"}
    )


def _watch(defaults: tuple[str, ...]) -> None:
    def refuse(what: str) -> None:
        refused.append(what)
        raise AssertionError(what)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in _OPENING and isinstance(arguments[0], str | bytes | os.PathLike):
            if (path := os.fsdecode(arguments[0])).startswith(defaults):
                refuse(f"a test used {path}, which is not the run's own: set the directory")
        elif event in ("subprocess.Popen", "os.posix_spawn"):
            program, environ = os.fsdecode(arguments[0]), arguments[-1]
            if environ is None or os.path.basename(program) in FOREIGN:
                return
            names = set(map(os.fsdecode, environ))
            if missing := [name for name in INHERITED if name not in names]:
                refuse(f"{program} was started without {', '.join(missing)}: start from os.environ")

    sys.addaudithook(watch)
