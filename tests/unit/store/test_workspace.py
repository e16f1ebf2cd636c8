import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from clouduploader.errors import CannotCreateError
from clouduploader.store import workspace

OLD = time.time() - 2 * workspace.STALE_SECONDS


@pytest.fixture(autouse=True)
def temporary_dir(tmp_path, monkeypatch):
    """$TMPDIR of this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where tempfile keeps what it found at its first use
    return tmp_path


@pytest.fixture
def make_leftover(temporary_dir):
    """A factory of a directory as a killed job leaves it."""

    def make(name="clouduploader-dead", *, mtime=OLD, is_marked=True):
        path = temporary_dir / name
        path.mkdir(mode=0o700)
        (path / ".ec2utils.conf").write_text("[region-x]")
        if is_marked:
            status = path.stat()
            (path / ".clouduploader-private").write_text(f"{name} {status.st_dev} {status.st_ino}\n")
        os.utime(path, (mtime, mtime))
        return path

    return make


def enter():
    """Start and end a job, which removes what is stale."""
    workspace.remove_stale()
    with workspace.private_directory():
        pass


def test_directory_is_private_marked_and_in_tmpdir(temporary_dir):
    before = os.umask(0)
    try:
        with workspace.private_directory() as path:
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    with workspace.private_directory() as path:
        assert path.parent == temporary_dir
        assert path.name.startswith("clouduploader-")
        assert [entry.name for entry in path.iterdir()] == [".clouduploader-private"]


def test_two_directories_are_two():
    with workspace.private_directory() as one, workspace.private_directory() as two:
        assert one != two


@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt])
def test_directory_is_removed_with_all_that_is_in_it(error):
    def work():
        with workspace.private_directory() as path:
            (path / "sub").mkdir()
            (path / "sub" / "file").write_text("x")
            seen.append(path)
            if error:
                raise error

    seen = []
    if error:
        with pytest.raises(error):
            work()
    else:
        work()
    assert not seen[0].exists()


def test_directory_that_cannot_be_made_is_an_error(temporary_dir, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary_dir / "none"))
    with pytest.raises(CannotCreateError, match=r"no temporary directory can be made: No such file"):
        enter()


def test_directory_of_a_dead_job_is_removed(make_leftover):
    path = make_leftover()
    enter()
    assert not path.exists()


def test_directory_of_a_killed_process_is_removed(temporary_dir):
    code = (
        "from clouduploader.store import workspace\n"
        "with workspace.private_directory() as path: print(path, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary_dir)},
    )
    path = Path(process.stdout.readline().strip())
    assert path.is_dir()
    os.utime(path, (OLD, OLD))
    enter()
    assert path.is_dir(), "it was still in use"
    process.kill()
    process.communicate()
    os.utime(path, (OLD, OLD))
    enter()
    assert not path.exists()


def test_young_directory_is_kept(make_leftover):
    path = make_leftover(mtime=time.time())
    enter()
    assert path.is_dir()


def test_directory_in_use_is_kept(make_leftover):
    path = make_leftover()
    lock = os.open(path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    enter()
    assert (path / ".ec2utils.conf").exists()
    os.close(lock)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to others")
def test_directory_of_somebody_else_is_kept(make_leftover):
    path = make_leftover()
    os.chown(path, 12345, -1)
    enter()
    assert path.is_dir()


def test_what_is_only_called_like_ours_is_kept(make_leftover, temporary_dir):
    """Our own tarball unpacked there, somebody's backup, and a copy of a private directory."""
    unpacked, copy = make_leftover("clouduploader-0.1.0", is_marked=False), temporary_dir / "clouduploader-copy"
    shutil.copytree(make_leftover(mtime=time.time()), copy)
    (copy / "notes").write_text("mine")
    os.utime(copy, (OLD, OLD))
    enter()
    workspace.remove_dead(unpacked, owner=os.geteuid())
    workspace.remove_dead(copy, owner=os.geteuid())
    assert (unpacked / ".ec2utils.conf").exists()
    assert (copy / "notes").exists()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/hostname")])
def test_what_is_no_mark_removes_nothing(make_leftover, make):
    path = make_leftover(is_marked=False)
    make(path / ".clouduploader-private")
    os.utime(path, (OLD, OLD))
    enter()
    assert (path / ".ec2utils.conf").exists()


def test_mark_goes_last(make_leftover, monkeypatch):
    """A removal that is interrupted is gone on with by the next job."""
    path = make_leftover()
    (path / "kept").mkdir()
    os.utime(path, (OLD, OLD))
    monkeypatch.setattr(shutil, "rmtree", lambda *_args, **_options: None)  # as if killed before
    enter()
    assert sorted(entry.name for entry in path.iterdir()) == [".clouduploader-private", "kept"]


def test_other_files_are_kept(make_leftover, temporary_dir):
    other = make_leftover("other")
    file = temporary_dir / "clouduploader-file"
    file.write_text("x")
    os.utime(file, (OLD, OLD))
    enter()
    assert other.is_dir()
    assert file.exists()


def test_symbolic_link_is_not_followed(make_leftover, temporary_dir):
    victim = make_leftover("victim")
    (temporary_dir / "clouduploader-x").symlink_to(victim)
    os.utime(temporary_dir / "clouduploader-x", (OLD, OLD), follow_symlinks=False)
    enter()
    assert (victim / ".ec2utils.conf").exists()


def test_symbolic_link_inside_a_stale_directory_is_removed_alone(make_leftover):
    victim, path = make_leftover("victim"), make_leftover()
    (path / "link").symlink_to(victim)
    os.utime(path, (OLD, OLD))
    enter()
    assert not path.exists()
    assert (victim / ".ec2utils.conf").exists()


def test_image_is_linked_under_its_name_and_the_link_removed(tmp_path, monkeypatch):
    (tmp_path / "42.file").write_text("image")
    directory = tmp_path / "dir"
    directory.mkdir()
    monkeypatch.chdir(tmp_path)
    with workspace.linked(tmp_path / "42.file", directory, "my image.raw") as link:
        assert link == directory / "my image.raw"
        assert link.is_symlink()
        assert link.read_text() == "image"
    assert list(directory.iterdir()) == []
    assert (tmp_path / "42.file").exists()


def test_relative_image_can_be_read_through_the_link(tmp_path, monkeypatch):
    (tmp_path / "a.raw").write_text("image")
    (tmp_path / "dir").mkdir()
    monkeypatch.chdir(tmp_path)
    with workspace.linked(tmp_path.relative_to(tmp_path) / "a.raw", tmp_path / "dir", "b.raw") as link:
        assert link.read_text() == "image"


def test_link_is_removed_after_an_error(tmp_path):
    with pytest.raises(KeyError), workspace.linked(tmp_path / "a", tmp_path, "b"):
        raise KeyError
    assert not (tmp_path / "b").is_symlink()


def test_link_never_takes_the_place_of_a_file(tmp_path):
    (tmp_path / "b").write_text("mine")
    refused = pytest.raises(CannotCreateError, match=r"can't be linked as .*b: File exists")
    with refused, workspace.linked(tmp_path / "a", tmp_path, "b"):
        pytest.fail("it was linked")
    assert (tmp_path / "b").read_text() == "mine"


def test_link_of_a_killed_try_is_taken_over(tmp_path):
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with workspace.linked(tmp_path / "a", tmp_path, "b") as link:
        assert link.readlink() == tmp_path / "a"
    assert not link.is_symlink()


def test_link_to_another_image_is_left_alone(tmp_path):
    (tmp_path / "b").symlink_to(tmp_path / "other")
    with pytest.raises(CannotCreateError, match="File exists"), workspace.linked(tmp_path / "a", tmp_path, "b"):
        pytest.fail("it was linked")
    assert (tmp_path / "b").readlink() == tmp_path / "other"


def test_link_that_somebody_removed_is_no_error(tmp_path):
    directory = tmp_path / "dir"
    directory.mkdir()
    with workspace.linked(tmp_path / "a", directory, "b") as link:
        link.unlink()
        directory.rmdir()
    assert not directory.exists()


def test_directory_of_a_killed_job_is_removed_at_once(temporary_dir, make_leftover):
    path = make_leftover(mtime=time.time())
    workspace.remove_dead(path, owner=os.geteuid())
    assert not path.exists()


def test_directory_that_is_in_use_or_none_of_ours_stays(temporary_dir, make_leftover):
    path, other = make_leftover(), make_leftover("clouduploader-else", is_marked=False)
    workspace.remove_dead(path, owner=os.geteuid() + 1)
    workspace.remove_dead(other, owner=os.geteuid())
    workspace.remove_dead(temporary_dir / "clouduploader-none", owner=os.geteuid())
    (temporary_dir / "clouduploader-link").symlink_to(other)
    workspace.remove_dead(temporary_dir / "clouduploader-link", owner=os.geteuid())
    workspace.remove_dead(Path("clouduploader-dead"), owner=os.geteuid())
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    workspace.remove_dead(path, owner=os.geteuid())
    os.close(lock)
    assert path.is_dir()
    assert other.is_dir()
