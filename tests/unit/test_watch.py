import select

import pytest

from clouduploader import watch
from clouduploader.errors import MissingFileError


@pytest.fixture
def changes(tmp_path):
    found = watch.DirectoryWatch(tmp_path)
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
    for number in range(limit + 1):
        (tmp_path / str(number % 2)).write_bytes(b"x")
    assert changes.changed() is None
    assert changes.changed() == set()


def test_directory_that_goes_away_is_told(tmp_path):
    directory = tmp_path / "spool"
    with pytest.raises(MissingFileError, match="there is no directory"):
        watch.DirectoryWatch(directory)
    directory.mkdir()
    changes = watch.DirectoryWatch(directory)
    directory.rmdir()
    with pytest.raises(MissingFileError, match="was removed, or moved away"):
        changes.changed()
    changes.close()
