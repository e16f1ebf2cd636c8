import contextlib
import errno
import os
import select

import inotify_simple
import pytest

from clouduploader.errors import LocalIOError, MissingFileError
from clouduploader.util import inotify


@pytest.fixture
def changes(tmp_path):
    found = inotify.DirectoryWatch(tmp_path)
    yield found
    found.close()


def is_readable(changes):
    return bool(select.select([changes], [], [], 0)[0])


def test_names_that_changed_are_told_once(changes, tmp_path):
    assert changes.changed() == set()
    assert not is_readable(changes)
    (tmp_path / "written").write_bytes(b"x")
    (tmp_path / "moved.new").write_bytes(b"x")
    (tmp_path / "moved.new").rename(tmp_path / "m\u00f6ved")
    (tmp_path / "written").unlink()
    assert is_readable(changes)
    assert changes.changed() == {"written", "moved.new", "m\u00f6ved"}
    assert changes.changed() == set()


def test_too_many_changes_may_be_any(changes, tmp_path):
    with open("/proc/sys/fs/inotify/max_queued_events") as file:  # noqa: PTH123
        limit = int(file.read())
    files = [tmp_path / "0", tmp_path / "1"]
    for file in files:
        file.touch()
    for number in range(limit + 1):  # in turn, for the kernel puts the same change only once
        os.close(os.open(files[number % 2], os.O_WRONLY))
    assert changes.changed() is None
    assert changes.changed() == set()


def test_directory_that_goes_away_is_told(tmp_path):
    directory = tmp_path / "spool"
    with pytest.raises(MissingFileError, match="there is no directory"):
        inotify.DirectoryWatch(directory)
    directory.mkdir()
    changes = inotify.DirectoryWatch(directory)
    directory.rmdir()
    with pytest.raises(MissingFileError, match="was removed, or moved away"):
        changes.changed()
    changes.close()


ERRORS = {
    "__init__": [errno.EINVAL, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSYS],  # inotify_init(2)
    # inotify_add_watch(2)
    "add_watch": [errno.EACCES, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOMEM, errno.ENOSPC, errno.ELOOP],
    "read": [errno.EINVAL, errno.EIO],
}


@pytest.mark.parametrize(("call", "code"), [(call, code) for call, codes in ERRORS.items() for code in codes])
def test_whatever_the_kernel_refuses_is_one_line(tmp_path, monkeypatch, call, code):
    def fail(*_arguments, **_more):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(inotify_simple.INotify, call, fail)
    with (
        pytest.raises(LocalIOError, match="can't be watched: ") as caught,
        contextlib.closing(inotify.DirectoryWatch(tmp_path)) as changes,
    ):
        changes.changed()
    assert ("fs.inotify" in (caught.value.hint or "")) is (code in (errno.EMFILE, errno.ENOSPC))
    assert "No space left" not in caught.value.message


def test_file_is_no_directory_to_watch(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MissingFileError):
        inotify.DirectoryWatch(tmp_path / "file" / "x")
