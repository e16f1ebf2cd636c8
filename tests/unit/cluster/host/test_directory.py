import os
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

from clouduploader.cluster.host import directory
from clouduploader.errors import CannotCreateError
from clouduploader.model.job import Job, JobState
from clouduploader.store import workspace
from clouduploader.util import files
from tests.fakes import forked


def test_directory_lives_as_long_as_its_attempt(tmp_path):
    with directory.made(tmp_path, "7", 2) as place:
        assert place.directory == tmp_path / "attempts/7.2"
        place.write_record(Job(name="7", state=JobState.UPLOADING, pid=5))
        directory.remove_dead(tmp_path)
        assert place.job_path("7").exists()
        with pytest.raises(CannotCreateError), directory.made(tmp_path, "7", 2):
            pass
    assert not place.directory.exists()


def test_keys_of_an_upload_lie_where_the_host_has_its_temporary_files(tmp_path, monkeypatch):
    temporary = tmp_path / "memory"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with directory.made(tmp_path, "7", 1) as place:
        assert place.temporary_dir.parent == temporary
        (place.temporary_dir / "key").touch()
        monkeypatch.setattr(workspace, "STALE_SECONDS", 0)
        directory.remove_dead(tmp_path)
        assert (place.temporary_dir / "key").exists()
    assert list(temporary.iterdir()) == []


def test_keys_of_a_killed_host_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(workspace, "STALE_SECONDS", 0)

    def attempt():
        with directory.made(tmp_path, "7", 1):
            os.kill(os.getpid(), signal.SIGKILL)

    forked.run(attempt)
    assert list(tmp_path.glob(f"{workspace.PREFIX}*"))
    directory.remove_dead(tmp_path)
    assert not list(tmp_path.glob(f"{workspace.PREFIX}*"))


def test_directory_that_was_just_made_is_not_taken_for_dead(tmp_path, monkeypatch):
    make, looking = files.open_locked, threading.Thread(target=directory.remove_dead, args=(tmp_path,))

    def late(path):
        if not looking.ident:
            looking.start()
            looking.join(0.2)  # it waits
        return make(path)

    monkeypatch.setattr(files, "open_locked", late)
    with directory.made(tmp_path, "7", 1) as place:
        looking.join()
        assert place.work_dir("7").exists()


@pytest.mark.parametrize("is_linked", [False, True])
def test_what_a_killed_host_left_is_removed_and_nothing_else(tmp_path, is_linked):
    left, other = tmp_path / "attempts/7.1", tmp_path / "attempts/notes"
    for path in (left / "7.dir", other):
        path.mkdir(parents=True)
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], cwd=left / "7.dir")
    spool = tmp_path
    if is_linked:
        spool = tmp_path / "spool"
        spool.symlink_to(tmp_path)
    directory.remove_dead(spool)
    assert program.wait(30) == -9
    assert not left.exists()
    assert other.exists()


def test_attempt_takes_the_place_of_a_dead_one(tmp_path):
    (tmp_path / "attempts/7.1/7.dir").mkdir(parents=True)
    with directory.made(tmp_path, "7", 1):
        pass


def test_spool_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(CannotCreateError), directory.made(tmp_path / "none", "7", 1):
        pass
