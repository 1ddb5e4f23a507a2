"""Virtual environments of the third-party applications, kept under `.services/`.

One is made anew when what is pinned for it changes. Each has the packages of one file in `requirements/` and what its
application needs besides: a project, a database. Of torch the CPU build is enough: where the index offers another,
name a folder that has it in PIP_FIND_LINKS.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stack.engines import ROOT

KEPT = ROOT / ".services"
REQUIREMENTS = Path(__file__).with_name("requirements")
PROGRAMS = Path(__file__).with_name("programs")
_STAMP = "made-from.sha256"
_SECONDS = 1800


class Environment:
    """One application's virtual environment and its files.

    Args:
        name: of its requirements, and of its folder.
        programs: files of `programs/` that its project is made with.
        prepare: makes the project, once the packages are installed.
    """

    def __init__(
        self,
        name: str,
        *,
        programs: Sequence[str] = (),
        prepare: Callable[["Environment"], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.folder = KEPT / name
        self._programs = programs
        self._prepare = prepare

    @property
    def project(self) -> Path:
        """Return the folder of the application's own files, of which each run takes a copy."""
        return self.folder / "project"

    def program(self, name: str) -> str:
        """Return the path of an installed program."""
        return str(self.folder / "venv" / "bin" / name)

    def run(self, *command: str, environ: Mapping[str, str] | None = None) -> str:
        """Run one of its programs in the project's folder and return its standard output.

        Raises:
            RuntimeError: it failed.
        """
        words = [self.program(command[0]), *command[1:]]
        result = subprocess.run(
            words,
            cwd=self.project,
            env={**os.environ, **(environ or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        if result.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {result.returncode}:\n{result.stderr[-2000:]}")
        return result.stdout

    def versions(self, *distributions: str) -> dict[str, str]:
        """Return the versions of installed distributions."""
        code = "import json, sys; from importlib.metadata import version as v; "
        code += "print(json.dumps({name: v(name) for name in sys.argv[1:]}))"
        found: dict[str, str] = json.loads(self.run("python", "-c", code, *distributions))
        return found

    def make(self, say: Callable[[str], None]) -> None:
        """Install and prepare it, unless that was done from the same requirements and programs with this Python."""
        wanted = self._fingerprint()
        stamp = self.folder / _STAMP
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.project.mkdir(parents=True)
        requirements = REQUIREMENTS / f"{self.name}.txt"
        count = len(requirements.read_text().split())
        say(f"services: installing {self.name} into {self.folder.relative_to(ROOT)}: {count} packages, some minutes")
        subprocess.run([sys.executable, "-m", "venv", str(self.folder / "venv")], check=True, timeout=_SECONDS)
        self.run("pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements))
        say(f"services: preparing {self.name}")
        self._prepare(self)
        stamp.write_text(wanted)

    def _fingerprint(self) -> str:
        parts = [(REQUIREMENTS / f"{self.name}.txt").read_bytes(), sys.version.encode()]
        parts += [(PROGRAMS / name).read_bytes() for name in self._programs]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()
