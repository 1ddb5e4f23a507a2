import os
import subprocess
import sys

import pytest

from mempressure.verdicts import environment


@pytest.fixture
def site(tmp_path):
    def make(*entries, name="site"):
        folder = tmp_path / name
        folder.mkdir()
        for entry in entries:
            (folder / entry).mkdir()
        return str(folder)

    return make


@pytest.mark.parametrize(
    ("entry", "name", "version"),
    [
        ("pandas-3.1.1.dist-info", "pandas", "3.1.1"),
        ("python_dateutil-2.9.0.post0.dist-info", "python_dateutil", "2.9.0.post0"),
        ("PyYAML-6.0.3.dist-info", "pyyaml", "6.0.3"),
        ("old-name-1.0.dist-info", "old_name", "1.0"),
        ("zope.event-5.0+local.1.dist-info", "zope_event", "5.0+local.1"),
        ("six-1.17.0-py3.11.egg-info", "six", "1.17.0"),
        ("pytz-2024.1.egg-info", "pytz", "2024.1"),
    ],
)
def test_versions_are_read_from_the_names_of_metadata_directories(site, entry, name, version):
    path = [site(entry, "pandas", "readme.txt", "nothing.dist-info")]
    assert environment.distribution_versions([name, "absent"], path=path) == {name: version}


def test_the_first_distribution_on_the_path_counts_as_it_does_for_imports(site, tmp_path):
    path = [str(tmp_path / "none"), object(), site("six-1.dist-info", name="a"), site("six-2.dist-info", name="b")]
    assert environment.distribution_versions(["six"], path=path) == {"six": "1"}


@pytest.mark.parametrize("name", ["Zope.Event", "zope-event", "zope_event", "zope--event", "zope-._event"])
def test_all_spellings_of_a_name_are_normalised_alike(name):
    assert environment.normalised(name) == "zope_event"


def test_versions_are_those_of_the_metadata():
    import importlib.metadata

    for name in ("pandas", "python-dateutil", "PyYAML", "sympy", "networkx"):
        normalised = environment.normalised(name)
        assert environment.distribution_versions([normalised]) == {normalised: importlib.metadata.version(name)}


def test_the_files_of_a_package_without_a_distribution_are_its_version(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "unversioned"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "deep/__init__.py", "deep/code.py", "notes.txt"):
        (package / name).write_text("")
    states = [environment.source_version("unversioned")]
    assert states[0].startswith("files 3, 0 bytes, ")
    (package / "notes.txt").write_text("changed")
    assert environment.source_version("unversioned") == states[0]
    (package / "deep" / "code.py").write_text("x = 1\n")
    states.append(environment.source_version("unversioned"))
    os.utime(package / "__init__.py", ns=(1, 2**61))
    states.append(environment.source_version("unversioned"))
    (package / "deep" / "more.py").write_text("")
    states.append(environment.source_version("unversioned"))
    assert len(set(states)) == len(states)


def test_a_module_of_one_file_and_a_missing_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "single_file_module.py").write_text("x = 1\n")
    assert environment.source_version("single_file_module").startswith("files 1, 6 bytes, ")
    assert environment.source_version("no_such_module_anywhere") == ""
    assert "single_file_module" not in sys.modules


def elsewhere(call, *flags, **environ):
    """Return what a function of the module says in an interpreter of its own."""
    code = f"from mempressure.verdicts import environment; print(environment.{call}())"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONMALLOC"} | environ
    done = subprocess.run([sys.executable, *flags, "-c", code], env=environment, capture_output=True, check=True)
    return done.stdout.decode().strip()


def test_the_allocator():
    library = os.confstr("CS_GNU_LIBC_VERSION")
    assert elsewhere("allocator") == f"pymalloc, {library}"
    assert elsewhere("allocator", PYTHONMALLOC="malloc") == f"malloc, {library}"
    assert elsewhere("allocator", "-X", "dev") == f"debug, {library}"
    # The loader says on standard error that there is no such library, and goes on.
    preloaded = elsewhere("allocator", LD_PRELOAD="/x/libjemalloc.so.2:/y/b.so")
    assert preloaded == f"pymalloc, {library}, b.so, libjemalloc.so.2"


def test_the_python():
    assert environment.python_version() == f"cpython {sys.version.split()[0]}{sys.abiflags}"
