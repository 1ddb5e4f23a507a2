import os
import socket
from pathlib import Path

import pytest

from mempressure.config.paths import (
    make_private,
    own_runtime_directory,
    require_private,
    require_trustworthy_parent,
)
from mempressure.config.user_directories import user_directories
from mempressure.errors import UnsafeDirectoryError
from tests.support.forking import in_child

UMASKS = [0o000, 0o002, 0o022, 0o077]
ME = os.geteuid()

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


def mode(path):
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize("umask", UMASKS)
@pytest.mark.parametrize("wanted", [0o755, 0o700])
def test_no_umask_opens_or_closes_what_is_made(tmp_path, set_umask, umask, wanted):
    set_umask(umask)
    path = tmp_path / "a" / "b" / "c"

    assert make_private(path, mode=wanted) == path

    assert mode(path) == wanted
    for parent in (path.parent, path.parent.parent):
        assert mode(parent) == 0o755 & ~umask


@pytest.mark.parametrize("umask", UMASKS)
def test_no_umask_opens_or_closes_the_runtime_directory(tmp_path, set_umask, umask):
    set_umask(umask)
    runtime = tmp_path / "a" / "b" / "runtime"

    own = own_runtime_directory(runtime)

    assert own == runtime / str(ME)
    assert (mode(own), mode(runtime)) == (0o755, 0o755)
    assert not (mode(runtime.parent) | mode(runtime.parent.parent)) & 0o022
    assert own_runtime_directory(runtime) == own


def test_what_is_there_keeps_its_mode(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(0o700)
    make_private(path)
    assert mode(path) == 0o700


@pytest.mark.parametrize("open_mode", [0o775, 0o757, 0o777, 0o1777])
def test_a_directory_open_to_others_is_refused_not_mended(tmp_path, open_mode):
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(open_mode)
    with pytest.raises(UnsafeDirectoryError, match=f"{path} .*mode {open_mode:04o}.*chmod go-w {path}"):
        make_private(path)
    assert mode(path) == open_mode


@pytest.mark.parametrize("make", [make_private, own_runtime_directory])
def test_a_file_or_link_is_no_directory(tmp_path, make):
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (file, link, dangling):
        with pytest.raises(UnsafeDirectoryError, match=f"{path} is not a directory; remove it"):
            make(path)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_among_the_parents_is_an_os_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file"):
        make_private(tmp_path / "file" / "state")


@as_root
def test_a_foreign_owner_is_refused(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    os.chown(path, 12345, -1)
    with pytest.raises(UnsafeDirectoryError, match=f"{path} belongs to uid 12345, not 0; remove it or chown it"):
        make_private(path)
    with pytest.raises(UnsafeDirectoryError, match="uid 12345, neither root nor 0; set MEMPRESSURE_RUNTIME_DIR"):
        own_runtime_directory(path)
    require_private(path, owner=12345)


def test_a_shared_runtime_directory_must_be_sticky(runtime_dir):
    runtime_dir.chmod(0o777)
    with pytest.raises(UnsafeDirectoryError, match=rf"{runtime_dir} .*mode 0777.*chmod go-w .* or chmod \+t "):
        own_runtime_directory(runtime_dir)
    with pytest.raises(UnsafeDirectoryError):
        list(user_directories(runtime_dir, on_problem=pytest.fail))

    runtime_dir.chmod(0o1777)
    require_trustworthy_parent(runtime_dir)
    own = own_runtime_directory(runtime_dir)
    assert list(user_directories(runtime_dir, on_problem=pytest.fail)) == [(ME, own)]


def test_no_runtime_directory_means_no_users(tmp_path):
    assert list(user_directories(tmp_path / "absent", on_problem=pytest.fail)) == []


def test_other_names_are_no_users(runtime_dir):
    own = own_runtime_directory(runtime_dir)
    for name in (f"0{ME}", "x", "-1", "٣", "1.state"):
        (runtime_dir / name).mkdir()
    assert list(user_directories(runtime_dir, on_problem=pytest.fail)) == [(ME, own)]


@as_root
def test_users_come_in_order_of_uid_and_bad_ones_are_told_of(runtime_dir):
    for uid in (1000, 33, 0, 999):
        (runtime_dir / str(uid)).mkdir()
        os.chown(runtime_dir / str(uid), uid, -1)
    os.chown(runtime_dir / "999", 1000, -1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime_dir / "7"))
    problems = []

    found = list(user_directories(runtime_dir, on_problem=problems.append))

    assert found == [(uid, runtime_dir / str(uid)) for uid in (0, 33, 1000)]
    assert [str(problem) for problem in problems] == [
        f"{runtime_dir / '7'} is not a directory; remove it",
        f"{runtime_dir / '999'} belongs to uid 1000, not 999; remove it or chown it",
    ]


@as_root
def test_a_user_that_goes_meanwhile_is_no_problem(runtime_dir):
    for uid in (0, 33):
        (runtime_dir / str(uid)).mkdir()
        os.chown(runtime_dir / str(uid), uid, -1)
    users = user_directories(runtime_dir, on_problem=pytest.fail)
    assert next(users)[0] == 0
    (runtime_dir / "33").rmdir()
    assert list(users) == []


@as_root
def test_a_runtime_directory_that_one_may_not_write_to_says_how_to_share_it(tmp_path):
    (tmp_path / "runtime").mkdir(mode=0o755)

    def check():
        os.chdir(tmp_path)  # a relative path: pytest's directories above are closed to others
        os.setuid(65534)
        with pytest.raises(PermissionError, match="mkdir -p -m 1777 runtime`, or set MEMPRESSURE_RUNTIME_DIR"):
            own_runtime_directory(Path("runtime"))

    in_child(check)
