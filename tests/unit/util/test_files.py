"""Files in directories where other users may have put anything."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from clouduploader.util import files


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


def test_file_is_created_whole_and_never_over_another(tmp_path):
    files.create_file(tmp_path / "x", b"new", mode=0o640)
    assert (tmp_path / "x").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("x", "link"):
        with pytest.raises(FileExistsError):
            files.create_file(tmp_path / name, b"other", mode=0o640)
    assert (tmp_path / "x").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "x"]


def test_file_that_cannot_be_written_is_not_created(tmp_path, monkeypatch):
    def fail(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        files.create_file(tmp_path / "x", b"new", mode=0o600)
    assert list(tmp_path.iterdir()) == []
