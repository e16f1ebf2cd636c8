"""Files where others may have laid anything. Tests of root's rights run an attacker's steps first, as he could."""

import concurrent.futures
import contextlib
import fcntl
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clouduploader.errors import ConfigError
from clouduploader.util import files

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")


@pytest.fixture
def theirs(tmp_path, let_all_enter):
    """A directory of another user, in one of ours."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    let_all_enter(directory)
    os.chown(directory, NOBODY, NOBODY)
    return directory


@pytest.fixture
def secret(tmp_path):
    """A file of root's that nobody else can read."""
    path = tmp_path / "secret"
    path.write_text("root:SECRET")
    path.chmod(0o600)
    return path


@pytest.fixture
def umask():
    """A function that sets the umask for the test."""
    before = os.umask(0)
    yield os.umask
    os.umask(before)


def lay_link(path):
    path.symlink_to("/dev/null")


def lay_socket(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server, contextlib.chdir(path.parent):
        server.bind(path.name)


@pytest.mark.parametrize("lay", [os.mkfifo, lay_link, lay_socket, Path.mkdir])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_APPEND])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, lay, flags):
    path = tmp_path / "x"
    lay(path)
    for mode in (None, 0o600):
        with pytest.raises(OSError, match=r"x'"):
            files.open_regular(path, flags, mode=mode)


def test_dangling_link_makes_no_file(tmp_path):
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"x'"):
        files.open_regular(tmp_path / "x", os.O_WRONLY, mode=0o644)
    assert not (tmp_path / "elsewhere").exists()


def test_link_of_an_administrator_is_followed_but_not_to_a_pipe(tmp_path):
    (tmp_path / "key").write_bytes(b"pem")
    (tmp_path / "x").symlink_to("key")
    with files.open_read(tmp_path / "x", is_followed=True) as file:
        assert file.read() == b"pem"
    (tmp_path / "key").unlink()
    os.mkfifo(tmp_path / "key")
    with pytest.raises(OSError, match="not a regular file"):
        files.open_read(tmp_path / "x", is_followed=True)


@pytest.mark.parametrize("mask", [0, 0o22, 0o77, 0o277, 0o777])
def test_modes_do_not_depend_on_the_umask(tmp_path, umask, mask):
    umask(mask)
    os.close(files.open_regular(tmp_path / "log", os.O_WRONLY, mode=0o644))
    files.replace_file(tmp_path / "data", b"x", mode=0o600)
    files.make_directory(tmp_path / "public", mode=0o755)
    files.make_directory(tmp_path / "private", mode=0o700)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"log": 0o644, "data": 0o600, "public": 0o755, "private": 0o700}


def test_mode_of_a_file_that_is_there_stays(tmp_path):
    (tmp_path / "log").touch(mode=0o600)
    os.close(files.open_regular(tmp_path / "log", os.O_WRONLY, mode=0o644))
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


@pytest.mark.parametrize("lay", [lambda path: path.write_text("of a crash"), os.mkfifo, lay_link])
def test_file_is_replaced_whatever_a_crash_left_beside_it(tmp_path, lay):
    lay(files.new_path(tmp_path / "x"))
    files.replace_file(tmp_path / "x", b"new", mode=0o644)
    assert (tmp_path / "x").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("lay", [os.mkfifo, lay_link, Path.mkdir])
def test_what_is_no_regular_file_is_not_replaced_by_one(tmp_path, lay):
    lay(tmp_path / "x")
    before = (tmp_path / "x").lstat()
    with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
        files.replace_file(tmp_path / "x", b"new", mode=0o644)
    assert (tmp_path / "x").lstat() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_lock_is_ours_or_not(tmp_path):
    with files.open_locked(tmp_path / "log") as log:
        assert files.open_locked(tmp_path / "log") is None
        descriptor = files.open_regular(tmp_path / "log", os.O_RDONLY)
        assert not files.try_lock(descriptor, fcntl.LOCK_SH)
        log.write(b"line")
    assert files.try_lock(descriptor)
    os.close(descriptor)


@as_root
def test_owner_is_who_could_exchange_what_is_there(tmp_path, theirs):
    (theirs / "of-root").mkdir()
    (theirs / "link").symlink_to("/etc")
    assert files.owner_of(Path("/etc")) is None
    assert files.owner_of(tmp_path) is None
    assert files.owner_of(theirs) == (NOBODY, NOBODY)
    assert files.owner_of(theirs / "of-root") == (NOBODY, NOBODY)
    assert files.owner_of(theirs / "not" / "there") == (NOBODY, NOBODY)
    assert files.owner_of(theirs / "link") == (NOBODY, NOBODY), "root's, but he led us there"


@as_root
def test_group_of_root_is_nobodys(theirs):
    os.chown(theirs, NOBODY, 0)
    assert files.owner_of(theirs) == (NOBODY, NOBODY)


IN_A_NAMESPACE = """
import ctypes, os, sys
from pathlib import Path
from clouduploader.util import files
outside = int(sys.argv[1])
os.setresgid(outside, outside, outside)
os.setresuid(outside, outside, outside)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(4, 1, 0, 0, 0) == 0  # PR_SET_DUMPABLE: else /proc/self belongs to root
assert libc.unshare(0x10000000) == 0  # CLONE_NEWUSER
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"0 {outside} 1")
Path("/proc/self/gid_map").write_text(f"0 {outside} 1")
assert os.geteuid() == 0
for directory in map(Path, sys.argv[2:]):
    with files.as_owner(directory):
        (directory / "file").touch()
"""
"""A user with this uid makes files in these directories, as the root of a user namespace of his own."""


@as_root
def test_plain_user_in_his_namespace_works_with_his_own_rights(tmp_path, theirs, let_all_enter):
    (theirs / "inner").mkdir(mode=0o755)
    os.chown(theirs / "inner", NOBODY, NOBODY)
    others = tmp_path / "others"  # a third user's, with a directory of the first one in it
    (others / "inner").mkdir(parents=True)
    os.chown(others, 12345, 12345)
    os.chown(others / "inner", NOBODY, NOBODY)
    let_all_enter(others)
    places = [theirs, theirs / "inner", others / "inner"]
    subprocess.run([sys.executable, "-c", IN_A_NAMESPACE, str(NOBODY), *map(str, places)], check=True)
    assert {(place / "file").stat().st_uid for place in places} == {NOBODY}


@as_root
def test_root_of_a_namespace_without_the_owner_does_not_act_in_his_place(theirs):
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NAMESPACE, "0", str(theirs)], stderr=subprocess.PIPE, text=True, check=False
    )
    assert "whose rights root may not take here" in done.stderr
    assert not (theirs / "file").exists()


@as_root
def test_root_makes_what_belongs_to_the_owner(theirs):
    with files.as_owner(theirs):
        files.replace_file(theirs / "a", b"", mode=0o600)
        files.make_directory(theirs / "b", mode=0o700)
        os.mkfifo(theirs / "c")
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in theirs.iterdir()}
    assert owners == dict.fromkeys("abc", (NOBODY, NOBODY))


@as_root
@pytest.mark.parametrize("act", ["open", "append", "replace", "unlink", "chmod", "chown", "tree"])
def test_root_is_led_nowhere(tmp_path, theirs, secret, act):
    """Links on every level, as the directory's owner lays them while root is at work."""
    (theirs / "file").symlink_to(secret)
    (theirs / "way").symlink_to(tmp_path)
    before = secret.stat()
    acts = {
        "open": lambda: (theirs / "way" / "secret").read_bytes(),
        "append": lambda: os.close(os.open(theirs / "file", os.O_WRONLY | os.O_APPEND)),
        "replace": lambda: files.replace_file(theirs / "way" / "secret", b"", mode=0o666),
        "unlink": lambda: (theirs / "way" / "secret").unlink(),
        "chmod": lambda: (theirs / "file").chmod(0o666),
        "chown": lambda: os.chown(theirs / "file", NOBODY, NOBODY),
        "tree": lambda: files.remove_tree(theirs / "way" / "secret"),
    }
    with pytest.raises(PermissionError), files.as_owner(theirs):
        acts[act]()
    assert secret.read_text() == "root:SECRET"
    assert secret.stat()[:7] == before[:7]


@as_root
def test_rights_come_back_and_are_the_threads_own(theirs, secret):
    go = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        reading = threads.submit(lambda: go.wait() and secret.read_text())
        with files.as_owner(theirs):
            with files.as_owner(theirs):
                pass
            with pytest.raises(PermissionError):
                secret.read_text()
            go.set()
            assert reading.result() == "root:SECRET"
    with pytest.raises(KeyError), files.as_owner(theirs):
        raise KeyError
    assert secret.read_text() == "root:SECRET"


def test_rights_in_our_own_directory_stay(tmp_path):
    with files.as_owner(tmp_path):
        files.replace_file(tmp_path / "a", b"", mode=0o600)
    assert (tmp_path / "a").stat().st_uid == os.geteuid()


@as_root
def test_root_runs_no_program_that_another_user_may_have_named(theirs, tmp_path):
    (theirs / "of-root").write_text("")  # in his directory, where he may exchange it
    (tmp_path / "conf").write_text("")
    files.check_program(tmp_path / "conf", "a program")
    with pytest.raises(ConfigError, match=r"^root does not run a program: .*/of-root may have been written by "):
        files.check_program(theirs / "of-root", "a program")
    os.chown(tmp_path / "conf", NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="conf may have been written by the user"):
        files.check_program(tmp_path / "conf", "a program")
