import pytest

from benchmarks.services import environments
from benchmarks.services.applications import applications
from benchmarks.services.environments import PROGRAMS, REQUIREMENTS, Environment


@pytest.fixture
def made(tmp_path, monkeypatch):
    """An environment of one's own, whose installing is only noted."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "one.txt").write_text("six==1.16.0\n")
    monkeypatch.setattr(environments, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path / "requirements")
    monkeypatch.setattr(environments, "PROGRAMS", tmp_path)
    monkeypatch.setattr(environments.subprocess, "run", lambda *_, **__: None)
    (tmp_path / "program.py").write_text("1")

    class Made:
        def __init__(self):
            self.said, self.prepared, self.broken = [], 0, False

        def make(self):
            def prepare(_):
                self.prepared += 1
                if self.broken:
                    raise RuntimeError("no")

            environment = Environment("one", programs=("program.py",), prepare=prepare)
            monkeypatch.setattr(environment, "run", lambda *_, **__: "")
            environment.make(self.said.append)

    return Made()


def test_it_is_made_once_and_says_what_it_installs(made):
    made.make()
    made.make()
    assert made.prepared == 1
    assert made.said[0] == "services: installing one into kept/one: 1 packages, some minutes"


@pytest.mark.parametrize(("name", "text"), [("requirements/one.txt", "six==1.17.0\n"), ("program.py", "2")])
def test_it_is_made_anew_when_requirements_or_programs_change(made, tmp_path, name, text):
    made.make()
    (tmp_path / "kept" / "one" / "project" / "old").touch()
    (tmp_path / name).write_text(text)
    made.make()
    assert made.prepared == 2
    assert not (tmp_path / "kept" / "one" / "project" / "old").exists()


def test_one_that_could_not_be_prepared_is_made_anew(made):
    made.broken = True
    with pytest.raises(RuntimeError, match="no"):
        made.make()
    made.broken = False
    made.make()
    made.make()
    assert made.prepared == 2


@pytest.mark.parametrize("application", applications(), ids=lambda application: application.name)
def test_what_applications_are_made_from_is_there_and_every_package_is_pinned(application):
    environment = application.installed
    lines = (REQUIREMENTS / f"{environment.name}.txt").read_text().split()
    assert lines
    assert all("==" in line for line in lines)
    assert all((PROGRAMS / name).exists() for name in environment._programs)
